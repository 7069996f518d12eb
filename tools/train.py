"""Train a model: ``python tools/train.py CONFIG``."""

import argparse
import os
import sys

from mmsparsedit.apis.launch import ConfigError, build_runner, load_config, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a generator.')
    parser.add_argument('config')
    parser.add_argument('--work-dir', help='folder of checkpoints, logs and pictures')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from the newest checkpoint of the work dir, or from the one given',
    )
    parser.add_argument('--amp', action='store_true', help='bf16 mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="learning rate in proportion to the batch, from the config's auto_scale_lr",
    )
    parser.add_argument('--no-validate', action='store_true', help='sample and measure nothing')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parse_options(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    if args.work_dir:
        config.work_dir = args.work_dir
    if args.amp:
        enable_amp(config)
    if args.auto_scale_lr:
        enable_auto_scale_lr(config)
    if args.no_validate:
        for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
            config[key] = None
    if args.resume:
        set_resume(config, args.resume)
    build_runner(config).train()


def enable_amp(config) -> None:
    """bf16 autocast in place of the plain optimizer wrapper."""
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    from mmsparsedit.engine import Bf16OptimWrapper, BufferedOptimWrapper
    from mmsparsedit.registry import OPTIM_WRAPPERS, class_of

    kind = class_of(config.optim_wrapper, OPTIM_WRAPPERS, 'OptimWrapper')
    if kind is AmpOptimWrapper:
        return  # it is mixed precision
    if kind not in (OptimWrapper, BufferedOptimWrapper, Bf16OptimWrapper):
        raise ConfigError(
            '--amp replaces a BufferedOptimWrapper by Bf16OptimWrapper, the config has '
            f'{kind.__name__ if kind else config.optim_wrapper.type}: leave --amp out, or set '
            'optim_wrapper.type=BufferedOptimWrapper.'
        )
    config.optim_wrapper.type = 'Bf16OptimWrapper'


def enable_auto_scale_lr(config) -> None:
    """Learning rate times batch of an update / ``auto_scale_lr.base_batch_size``."""
    if not (config.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise ConfigError(
            '--auto-scale-lr: the config does not say which batch its learning rate is for: set '
            'auto_scale_lr.base_batch_size with --cfg-options.'
        )
    config.auto_scale_lr.enable = True


def set_resume(config, source: str) -> None:
    """Resume from ``source``; ``'auto'`` without a checkpoint keeps the config's ``load_from``."""
    from mmsparsedit.engine.checkpoint_files import find_sound_checkpoint

    if source == 'auto':
        source, passed_over = find_sound_checkpoint(config.work_dir)
        for reason in passed_over:
            print(f'not resumed from: {reason}', file=sys.stderr)
        if source is None and passed_over:
            raise ConfigError(
                f'--resume: {config.work_dir} has checkpoints, and none is sound. Name one of '
                'another folder, or start anew without --resume.'
            )
        if source is None:
            print(f'no checkpoint in {config.work_dir}: starting anew')
            return
        source = str(source)
    if not os.path.isfile(source):
        raise ConfigError(f'--resume: checkpoint {source} does not exist.')
    config.resume, config.load_from = True, source


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

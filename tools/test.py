"""Sample and measure: ``python tools/test.py CONFIG CHECKPOINT``."""

import argparse
import os

from mmsparsedit.apis.launch import (
    asked_budget,
    build_runner,
    load_config,
    output_file,
    parse_budget,
    parse_options,
    parse_sampling,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Sample a generator and measure the samples.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--work-dir', help='folder of the log')
    parser.add_argument('--out', type=output_file, help='JSON file of the metrics')
    parser.add_argument(
        '--show-dir',
        help='folder for every sample and a labelled grid; a test that was stopped continues there '
        '(default: a folder under the work dir, without a grid)',
    )
    parser.add_argument('--npz', type=output_file, help="file for all samples in ADM's format")
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parse_sampling(parser)
    parse_budget(parser)
    parse_options(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis import choose_sampler

    config = load_config(args.config, args.cfg_options)
    choose_sampler(config.model, args.sampler, args.num_steps, args.cfg_scale)
    budget = asked_budget(args)
    config.launcher = args.launcher
    config.load_from, config.resume = args.checkpoint, False
    if not os.path.exists(args.checkpoint) and '://' not in args.checkpoint:
        raise FileNotFoundError(
            f'checkpoint {args.checkpoint} does not exist. Training writes them to '
            f'{config.work_dir}.'
        )
    if budget is not None:
        from mmsparsedit.apis.budget import Budgets

        chosen = Budgets(config.model).choose(budget)
        config.model.prune = chosen.prune
        print(chosen)
    if args.work_dir:
        config.work_dir = args.work_dir
    # a test needs no training parts: no data, no optimizer, no copy of the weights for averaging
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        config[key] = None
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    for hook in ('ema', 'checkpoint', 'invalid_loss', 'loss_by_timestep', 'preemption'):
        config.default_hooks[hook] = None
    if args.out:
        config.default_hooks.report.out = str(args.out)
    if args.show_dir:
        config.test_cfg.samples_dir = args.show_dir
        config.default_hooks.sample_grid.show_dir = args.show_dir
    if args.npz:
        config.test_cfg.npz = str(args.npz)
    build_runner(config).test()


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

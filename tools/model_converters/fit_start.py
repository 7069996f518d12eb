"""A sparse model fitted to a dense one: ``fit_start.py CONFIG CHECKPOINT --out FILE``.

    python tools/model_converters/fit_start.py configs/sparsedit/digits_distill.py \
        work_dirs/dit_digits/iter_1500.pth --out work_dirs/dit_digits/fitted.pth

The result is the start of a fine-tuning: give it as ``load_from``.
"""

import argparse

from mmsparsedit.apis.launch import (
    ConfigError,
    load_config,
    output_file,
    parse_options,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Load a dense checkpoint into the sparse network of a config and fit, by ridge '
        "regression to the dense model's tokens on training data: the projections of "
        'PoolingFormers, W1 and W2 of recoveries, and the last linear map.'
    )
    parser.add_argument('config', help='of the sparse model, with its training data')
    parser.add_argument('checkpoint', help='of the dense model, in any layout of load_pretrained')
    parser.add_argument('--out', required=True, type=output_file, help='.pth, .pt or .safetensors')
    parser.add_argument('--source', default='auto', help='layout of CHECKPOINT (default: found)')
    parser.add_argument('--batches', type=int, default=200, help='of the training data loader')
    parser.add_argument('--batch-size', type=int, help="default: the config's")
    parser.add_argument(
        '--ridge', type=float, default=1e-3, help='penalty on the distance from the weights before'
    )
    parser.add_argument('--seed', type=int, default=0, help='of noise and timesteps')
    parser.add_argument('--device', help='default: the GPU where there is one')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.calibration import training_batches
    from mmsparsedit.models import calibration_batches, fit_start, load_pretrained
    from mmsparsedit.models.checkpoints import TENSOR_FILES, export_weights, write_checkpoint
    from mmsparsedit.models.distillation import load_teacher
    from mmsparsedit.registry import MODELS

    if not args.out.name.endswith(TENSOR_FILES):
        raise ConfigError(f'--out {str(args.out)!r} must end in one of {", ".join(TENSOR_FILES)}.')
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    generator = MODELS.build(config.model).to(args.device or get_device())
    if generator.prune is None:
        raise ConfigError(f'{args.config} is a dense model: name the sparse one to be fitted.')
    if args.batches < len(generator.prune.stages):
        raise ConfigError(
            f'--batches {args.batches} leaves out stages of the schedule, which has '
            f'{len(generator.prune.stages)}: a few hundred are usual.'
        )
    network = generator.network
    teacher = load_teacher(config.model.network, network.depth, args.checkpoint, args.source)
    print(load_pretrained(network, args.checkpoint, args.source).summary())

    data = training_batches(generator, config, args.batches, args.batch_size, args.seed)
    batches = list(calibration_batches(generator.eval(), data, args.seed))
    print(f'relative squared error over {len(batches)} batches, at the start and fitted:')
    for part in fit_start(network, teacher.to(generator.device), batches, args.ridge):
        print(f'{part.name:<24} {part.start:8.4f} {part.fitted:8.4f}')
    write_checkpoint(export_weights(network), args.out)
    print(f'-> {args.out}: train with load_from set to it')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""How even attention is, by layer and timestep: ``analyze_attention.py CONFIG CHECKPOINT``.

    python tools/analysis_tools/analyze_attention.py configs/sparsedit/dit_digits.py \
        work_dirs/dit_digits/iter_1500.pth --out attention.png

The first figure of the SparseDiT paper for a model of one's own, dense or sparse, on its training
data: a PNG, and the numbers beside it as JSON.
"""

import argparse
import json
from pathlib import Path

from mmsparsedit.apis.launch import (
    ConfigError,
    load_config,
    output_file,
    parse_options,
    run_tool,
)
from mmsparsedit.utils.files import write_text


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='with its training data')
    parser.add_argument('checkpoint', help='in any layout of load_pretrained')
    parser.add_argument('--out', type=output_file, default='attention.png', help='.png')
    parser.add_argument('--timesteps', type=int, default=20, help='how many, evenly apart')
    parser.add_argument('--batch-size', type=int, help="default: the config's")
    parser.add_argument('--seed', type=int, default=0, help='of data and noise')
    parser.add_argument('--device', help='default: the GPU where there is one')
    parse_options(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmengine.device import get_device

    from mmsparsedit.apis.attention_maps import analyze_attention, plot_attention
    from mmsparsedit.apis.calibration import training_batches
    from mmsparsedit.apis.inference import init_model

    if args.out.suffix != '.png':
        raise ConfigError(f'--out {str(args.out)!r} must end in .png.')
    if args.timesteps < 1:
        raise ConfigError(f'--timesteps must be at least 1, got {args.timesteps}.')
    config = load_config(args.config, args.cfg_options)
    generator = init_model(config, args.checkpoint, args.device or get_device())
    T = generator.diffusion.num_train_timesteps
    count = min(args.timesteps, T)
    timesteps = [(2 * i + 1) * T // (2 * count) for i in range(count)]
    data = training_batches(generator, config, count, args.batch_size, args.seed)
    found = analyze_attention(generator, data, timesteps, args.seed)
    plot_attention(found, Path(args.config).stem, args.out)
    numbers = args.out.with_suffix('.json')
    write_text(numbers, json.dumps(found, indent=1) + '\n')
    print('mean over timesteps of the variance of attention (0 even, 1 a single token):')
    for name, row in zip(found['layers'], found['variance'], strict=True):
        print(f'{name:<24} {sum(row) / len(row):.4f}')
    print(f'-> {args.out}, {numbers}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

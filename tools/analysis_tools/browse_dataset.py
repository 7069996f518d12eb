"""Look at what a config trains on: ``browse_dataset.py CONFIG --output-dir D``.

Items as the network gets them, after all transforms, with their labels or captions: images as PNG,
videos as mp4, and a labelled grid. Latents are decoded where the autoencoder is on this machine;
elsewhere their first three channels are shown, enlarged.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, load_config, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--output-dir', type=Path, default=Path('browse'), help='default: browse')
    parser.add_argument('--show-number', type=int, default=16, help='items (default 16)')
    parser.add_argument(
        '--phase', choices=('train', 'extract'), default='train', help='train_dataloader or extract'
    )
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.browsing import pictures_of
    from mmsparsedit.registry import DATASETS
    from mmsparsedit.visualization import (
        contact_sheet,
        labelled_grid,
        save_grid,
        save_image,
        save_mp4,
    )

    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    part = config.get('train_dataloader' if args.phase == 'train' else 'extract')
    if not part or args.show_number < 1:
        raise ConfigError(f'{args.config}: no data of phase {args.phase}, or none asked for.')
    dataset = DATASETS.build(part.dataset)
    numbers = range(0, len(dataset), max(1, len(dataset) // args.show_number))
    shown, captions = pictures_of(dataset, list(numbers)[: args.show_number], config.model)
    for number, picture, caption in zip(numbers, shown, captions, strict=False):
        stem = args.output_dir / f'{number:06d}'
        if picture.ndim == 4:
            save_mp4(stem.with_suffix('.mp4'), picture, request=dict(caption=caption))
        else:
            save_image(stem.with_suffix('.png'), picture, dict(caption=caption))
    sheet = contact_sheet if shown[0].ndim == 4 else labelled_grid
    save_grid(args.output_dir / 'grid.png', sheet(shown, captions))
    print(f'{len(shown)} of {len(dataset)} items and grid.png in {args.output_dir}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

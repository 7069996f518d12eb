"""Convert a checkpoint: ``convert_checkpoint.py SRC DST --config CONFIG [--source] [--target]``."""

import argparse

from mmsparsedit.apis.launch import ConfigError, load_config, parse_options, run_tool

TARGETS = ('mmsparsedit', 'dit', 'pixart', 'diffusers')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Read any known checkpoint into the network of a config, report what became '
        "of every weight, and write it in this package's layout or, for dense models, in DiT's, "
        "PixArt's or diffusers'."
    )
    parser.add_argument('src', help="file, URL, or folder in diffusers' layout")
    parser.add_argument('dst', help='.pth, .pt or .safetensors')
    parser.add_argument('--config', required=True)
    parser.add_argument('--source', default='auto', help='layout of SRC (default: recognised)')
    parser.add_argument('--target', default='mmsparsedit', choices=TARGETS, help='layout of DST')
    parser.add_argument('--verbose', action='store_true', help='list every key')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.models import load_pretrained
    from mmsparsedit.models.checkpoint_io import TENSOR_FILES, write_checkpoint
    from mmsparsedit.models.pixart_layout import to_pixart
    from mmsparsedit.models.weight_layouts import to_diffusers, to_dit
    from mmsparsedit.models.weights import dense_layered_state
    from mmsparsedit.registry import MODELS

    if not args.dst.endswith(TENSOR_FILES):
        raise ConfigError(f'DST {args.dst!r} must end in one of {", ".join(TENSOR_FILES)}.')
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    network = MODELS.build(config.model.network)
    report = load_pretrained(network, args.src, args.source)
    print(report.summary())
    if args.verbose:
        for key in report.loaded:
            print(f'loaded       {key} <- {" + ".join(report.sources[key])}')
        for key in report.dropped:
            print(f'dropped      {key}')
        for key in report.initialised:
            print(f'initialised  {key}')
    if args.target == 'mmsparsedit':
        state = network.state_dict()
    elif args.target == 'dit':
        state = to_dit(dense_layered_state(network))
    elif args.target == 'pixart':
        state = to_pixart(dense_layered_state(network))
    else:
        state = to_diffusers(dense_layered_state(network), network.depth)
    write_checkpoint(state, args.dst)
    print(f'{len(state)} tensors in {args.dst} ({args.target})')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""Convert a checkpoint: ``convert_checkpoint.py SRC DST --config CONFIG [--source] [--target]``."""

import argparse

from mmsparsedit.apis.launch import ConfigError, load_config, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Read any known checkpoint into the network of a config, report what became '
        "of every weight, and write it in this package's layout or, for dense models, in another "
        'one of the network, such as dit, latte, pixart or diffusers.'
    )
    parser.add_argument('src', help="file, URL, or folder in diffusers' layout")
    parser.add_argument('dst', help='.pth, .pt or .safetensors')
    parser.add_argument('--config', required=True)
    parser.add_argument('--source', default='auto', help='layout of SRC (default: recognised)')
    parser.add_argument('--target', default='mmsparsedit', help='layout of DST')
    parser.add_argument('--verbose', action='store_true', help='list every key')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.models.checkpoints import (
        TENSOR_FILES,
        export_weights,
        load_pretrained,
        write_checkpoint,
    )
    from mmsparsedit.models.checkpoints.load import layout_named
    from mmsparsedit.registry import MODELS

    if not args.dst.endswith(TENSOR_FILES):
        raise ConfigError(f'DST {args.dst!r} must end in one of {", ".join(TENSOR_FILES)}.')
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    network = MODELS.build(config.model.network)
    target = layout_named(network, args.target)  # a wrong one is refused before any work
    report = load_pretrained(network, args.src, args.source)
    print(report.summary())
    if args.verbose:
        for key in report.loaded:
            print(f'loaded       {key} <- {" + ".join(report.sources[key])}')
        for key in report.dropped:
            print(f'dropped      {key}')
        for key in report.initialised:
            print(f'initialised  {key}')
    state = export_weights(network, args.target)
    write_checkpoint(state, args.dst)
    if target.note and target.name != report.source:
        print(target.note)
    print(f'{len(state)} tensors in {args.dst} ({args.target})')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

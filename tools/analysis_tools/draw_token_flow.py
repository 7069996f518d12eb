"""Draw the way of the tokens: ``tools/analysis_tools/draw_token_flow.py CONFIG --out f.svg``."""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import load_config, output_file, parse_options, run_tool
from mmsparsedit.utils.files import write_text


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Tokens of each layer of a sparse network, at one stage of its schedule.'
    )
    parser.add_argument('config')
    parser.add_argument('--stage', type=int, default=-2, help='0 is the clean end (default: -2)')
    parser.add_argument('--out', type=output_file, help='SVG to write (default: CONFIG_flow.svg)')
    parse_options(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.flow_picture import flow_svg

    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    name = Path(args.config).stem
    out = args.out or Path(f'{name}_flow.svg')
    write_text(out, flow_svg(config.model, name, args.stage))
    print(f'token flow drawn in {out}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

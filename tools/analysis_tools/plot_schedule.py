"""Draw a prune schedule: ``python tools/analysis_tools/plot_schedule.py CONFIG --out s.png``."""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import load_config, output_file, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Pruning rate, tokens and GMACs over timesteps and over the steps of the '
        "config's sampler."
    )
    parser.add_argument('config')
    parser.add_argument(
        '--out', type=output_file, help='PNG to write (default: CONFIG_schedule.png)'
    )
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.schedule_plot import plot_schedule

    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    name = Path(args.config).stem
    out = args.out or f'{name}_schedule.png'
    plot_schedule(config.model, name, out)
    print(f'schedule drawn in {out}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

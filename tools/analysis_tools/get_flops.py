"""Cost of a model, exactly: ``python tools/analysis_tools/get_flops.py CONFIG``.

``--as paper`` prints what the paper prints for the config, and what its way of counting gives.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmsparsedit.apis.launch import load_config, output_file, parse_options, run_tool
from mmsparsedit.utils.files import write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='GMACs of one network call per stage of the prune schedule, their means over '
        'timesteps and over the calls of the sampler, by part, and parameters.'
    )
    parser.add_argument('config')
    parser.add_argument(
        '--as',
        dest='counter',
        choices=('exact', 'paper'),
        default='exact',
        help="paper: its figure, its way of counting at its grid, and the authors' log",
    )
    parser.add_argument('--json', type=output_file, help='write the figures to this file')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.cost import cost_report, format_report, paper_report
    from mmsparsedit.apis.metafiles import describe_paper, entry_of

    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    entry = entry_of(config.filename)
    if args.counter == 'paper':
        report = paper_report(config.model, entry and entry.paper)
        print('\n'.join([f'{Path(args.config).stem}: {describe_paper(entry)}', *report['lines']]))
    else:
        report = cost_report(config.model)
        print(format_report(report, Path(args.config).stem))
        print(describe_paper(entry))
    if args.json:
        report['paper'] = asdict(entry.paper) if entry and entry.paper else None
        write_text(args.json, json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

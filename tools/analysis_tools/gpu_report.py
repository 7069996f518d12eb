"""What a GPU makes of the method, in half an hour: ``python tools/analysis_tools/gpu_report.py``.

    gpu_report.py --json gpu.json --document docs/performance.md    # again: what is missing
    gpu_report.py --json tiny.json --rehearse                       # on a CPU, digits instead

Measures the cases of ``configs/benchmarks/gpu.yml``, most important first. Each row is written as
soon as it is known; one that fails is written with its error, and the others go on.
"""

import argparse
import gc
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmsparsedit.apis.launch import output_file, run_tool

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = {'model.network.hidden_size': 16, 'model.network.num_heads': 2}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--json', required=True, type=output_file, help='rows; what is there is not measured again'
    )
    parser.add_argument('--cases', default='gpu', help='another table, as of benchmark.py --preset')
    parser.add_argument(
        '--minutes', type=float, default=35, help='no case is begun that may exceed them'
    )
    parser.add_argument('--document', help='put the table between its marks gpu:begin and gpu:end')
    parser.add_argument(
        '--rehearse', action='store_true', help='tiny models, on the CPU, no levers'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.benchmark import benchmark, read_cases, read_model
    from mmsparsedit.apis.benchmark_report import format_report
    from mmsparsedit.apis.deviation import deviations
    from mmsparsedit.apis.documents import replace_marked
    from mmsparsedit.utils.files import write_text

    init_default_scope('mmsparsedit')
    path = args.json
    rows = json.loads(path.read_text()) if path.is_file() else {}
    read = partial(read_model, CONFIGS, TINY if args.rehearse else {}, ())
    began, longest = time.monotonic(), 0.0
    for case in read_cases(args.cases, CONFIGS / 'benchmarks'):
        start = time.monotonic()
        if rows.get(case.title, {}).keys() & {'sides', 'deviations'}:
            continue
        if start + longest - began > 60 * args.minutes:
            print(f'{case.title}: no time left, give the command again')
            continue
        case = rehearsed(case) if args.rehearse else replace(case, device='cuda')
        try:
            if case.mode == 'deviation':
                rows[case.title] = deviations(case, read)
                told = json.dumps(rows[case.title]['deviations'], indent=2)
            else:
                rows[case.title] = benchmark(case, read)
                told = format_report(rows[case.title])
            print(f'{case.title}\n{told}', flush=True)
        except Exception as error:  # its row says so, and the next is measured
            rows[case.title] = dict(error=f'{type(error).__name__}: {error}')
            print(f'{case.title}: {rows[case.title]["error"]}', flush=True)
        write_text(path, json.dumps(rows, indent=2) + '\n')
        gc.collect()
        if torch.cuda.is_available():
            torch.compiler.reset()
            torch.cuda.empty_cache()
        longest = max(longest, time.monotonic() - start)
    if args.document:
        replace_marked(args.document, 'gpu', document_lines(rows))


def rehearsed(case):
    """The case with digits on the CPU, once, without what needs a GPU or a compiler."""
    baseline = 'plain' if case.baseline == 'plain' else 'sparsedit/dit_digits'
    return replace(
        case,
        config='sparsedit/digits',
        baseline=baseline,
        batch=[1],
        device='cpu',
        acceleration={k: v for k, v in case.acceleration.items() if k == 'cache_interval'},
        acceleration_of_plain={},
        steps_per_stage=case.steps_per_stage and 1,
        rounds=1,
    )


def document_lines(rows: dict[str, dict]) -> list[str]:
    """Markdown: what each case gave, and where the time goes in those that were profiled."""
    from mmsparsedit.apis.benchmark_report import rows_of
    from mmsparsedit.apis.deviation import WAYS
    from mmsparsedit.apis.documents import markdown_table

    reports = [row for row in rows.values() if 'sides' in row]
    failed = [f'* {title}: {row["error"]}' for title, row in rows.items() if 'error' in row]
    measured = [line[:8] for line in rows_of(reports)]  # without the paper's
    kinds = dict.fromkeys(k for r in reports for s in r['sides'] for k in _kinds(s))
    profiled = [['time of', *kinds]]
    for report in reports:
        for side in filter(_kinds, report['sides']):
            spent = [f'{100 * _kinds(side).get(kind, 0):.0f} %' for kind in kinds]
            profiled.append([f'{report["setting"]["title"]}: {side["name"]}', *spent])
    compared = [row for row in rows.values() if 'deviations' in row]
    machines = dict.fromkeys(f'{r["device"]}, torch {r["torch"]}' for r in (*reports, *compared))
    exact = [['deviation from float32, by stage', *WAYS]]
    for row in compared:
        cells = (row['deviations'].get(way) for way in WAYS)
        exact.append([row['setting']['title'], *map(_deviation_cell, cells)])
    tables = (markdown_table(table) for table in (measured, profiled, exact) if len(table) > 1)
    parts = [f'{machine}, `gpu_report.py`:' for machine in machines], *tables, failed
    return [line for part in parts if part for line in ['', *part]]


def _deviation_cell(found: list[float] | str | None) -> str:
    if isinstance(found, list):
        return ', '.join(f'{100 * value:.2g} %' for value in found)
    return '-' if found is None else found.split(':')[0]


def _kinds(side: dict) -> dict:
    return side.get('profile', {}).get('kinds', {})


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

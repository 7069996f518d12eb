"""Ways from a dense model to a sparse one of its quality, by length: ``docs/convert.md``.

    python tools/analysis_tools/run_conversions.py --document docs/convert.md conversions

For each seed: the dense model, a start fitted to it, and for each share of its iterations plain
fine-tuning and distillation, both from the dense checkpoint and from the fitted one, the latter
with the authors' nearest upsampling too, and low-rank adapters. Runs that a work dir holds already
are not repeated.
"""

import argparse
import os
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import run_tool
from mmsparsedit.apis.studies import STUDIES, length, run_once

METHODS = (
    'plain', 'fitted', 'distilled', 'fitted_distilled', 'fitted_distilled_nearest', 'fitted_lora',
)  # fmt: skip
NEAREST = 'model.network.upsample=nearest'


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', choices=list(STUDIES), default='digits')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--percent', nargs='+', type=int, default=[3, 10], help="of the dense run's iterations"
    )
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=METHODS)
    parser.add_argument(
        '--also',
        nargs='*',
        type=Path,
        default=[],
        metavar='CONFIG',
        help='other structures, such as that of plan_structure.py, trained as fitted_distilled',
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/conversion'))
    parse_table(parser)
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.runs import read_run, runs_table

    os.environ.setdefault('OMP_NUM_THREADS', '1')
    study = STUDIES[args.data]
    sparse, lora = study.config('{}_distill'), study.config('{}_lora')
    ways = [
        (
            method,
            parts := set(method.split('_')),
            lora if 'lora' in parts else sparse,
            [NEAREST] if 'nearest' in parts else [],
        )
        for method in args.methods
    ]
    ways += [(config.stem, {'fitted', 'distilled'}, config, []) for config in args.also]
    found = {}
    for seed in args.seeds:
        chance = f'randomness.seed={seed}'
        dense = study.dense(args.work_dir, seed)
        tested = args.work_dir / f'dense_seed{seed}'
        run_once(
            tested, 'metrics.json', 'test.py', study.config('dit_{}'), dense,
            '--work-dir', tested, '--cfg-options', chance, *study.sampling,
        )  # fmt: skip
        found.setdefault('dense', []).append(tested)

        def fitted(config: Path, name: str, *options: str, dense=dense, seed=seed) -> Path:
            folder = args.work_dir / f'{name}_seed{seed}'
            run_once(
                folder, 'fitted.pth', 'model_converters/fit_start.py', config, dense,
                '--out', folder / 'fitted.pth', '--seed', str(seed), '--batches', '16',
                *(['--cfg-options', *options] if options else []),
            )  # fmt: skip
            return folder / 'fitted.pth'

        for percent in args.percent:
            iterations = study.iterations * percent // 100
            for method, parts, config, options in ways:
                name = f'{method}_{percent}'
                folder = args.work_dir / f'{name}_seed{seed}'
                start, teacher = dense, ['model.distillation=None']
                if 'fitted' in parts:
                    whole = sparse if 'lora' in parts else config
                    start = fitted(
                        whole, '_'.join(['fit', whole.stem, *parts & {'nearest'}]), *options
                    )
                if 'distilled' in parts:
                    teacher = [f'model.distillation.teacher={dense}']
                run_once(
                    folder, 'metrics.json', 'train.py', config, '--work-dir', folder,
                    '--cfg-options', chance, f'load_from={start}', *teacher, *options,
                    *length(iterations), *study.sampling,
                )  # fmt: skip
                found.setdefault(name, []).append(folder)
    runs = []
    for name, folders in found.items():
        for folder in folders:
            runs.append(read_run(folder))
            # the options of a name are the same in all seeds, but for the paths of their teachers
            runs[-1].name, runs[-1].recipe = name, {}
    figures = [dict(run=run.name, metrics=run.metrics) for run in runs]  # seeds in order
    show_table(runs_table(runs, study.keys), figures, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""One elastic checkpoint at many budgets beside models trained for one: ``docs/budgets.md``.

    python tools/analysis_tools/run_budgets.py --document docs/budgets.md budgets \
        --plot docs/images/budgets.png

For each seed, from the dense model of ``run_conversions.py``: an elastic model, fitted and
distilled, tested at its own schedule with guidance whose unconditional half leaves the middle out
and with full guidance, then at each budget; for some budgets a model trained for it alone, as long
and in the same way. Runs that a work dir holds already are not repeated.
"""

import argparse
import os
import statistics
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import output_file, run_tool
from mmsparsedit.apis.studies import STUDIES, Study, length, run_once

COST, SPEED = 'cost/gmacs_per_sample', 'samples_per_second'
SPEED_BATCH = 20  # images of a timed call


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', choices=list(STUDIES), default='digits')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--budgets', nargs='+', type=float, help="default: the study's")
    parser.add_argument('--specialised', nargs='*', type=float, help='of the budgets')
    parser.add_argument(
        '--percent', type=int, default=10, help="of the dense run's iterations, for each training"
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/conversion'))
    parser.add_argument(
        '--rounds', type=int, default=0, help='measure images/s by so many timed calls of each run'
    )
    parser.add_argument('--plot', type=output_file, help='PNG to draw')
    parse_table(parser)
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def run_seed(args: argparse.Namespace, study: Study, budgets, seed: int) -> dict[str, Path]:
    """Work dirs of a seed's runs by the names of their rows."""
    from mmsparsedit.apis.runs import read_run

    elastic, sparse = study.config('{}_cheap_guidance'), study.config('{}_distill')
    iterations = study.iterations * args.percent // 100
    chance = f'randomness.seed={seed}'
    dense = study.dense(args.work_dir, seed)
    found: dict[str, Path] = {}

    def folder(name: str) -> Path:
        return args.work_dir / f'{name}_seed{seed}'

    def trained(name: str, config: Path) -> str:
        start = folder(f'fit_{name}') / 'fitted.pth'
        run_once(
            start.parent, start.name, 'model_converters/fit_start.py', config, dense,
            '--out', start, '--seed', str(seed), '--batches', '16',
        )  # fmt: skip
        found[name] = folder(name)
        run_once(
            found[name], 'metrics.json', 'train.py', config, '--work-dir', found[name],
            '--cfg-options', chance, f'load_from={start}', f'model.distillation.teacher={dense}',
            *length(iterations), *study.sampling,
        )  # fmt: skip
        return read_run(found[name]).checkpoint

    def tested(name: str, config: Path, checkpoint: str, *options: str, budget=None) -> None:
        found[name] = folder(name)
        run_once(
            found[name], 'metrics.json', 'test.py', config, checkpoint, '--work-dir', found[name],
            *(['--budget', str(budget)] if budget else []),
            '--cfg-options', chance, *options, *study.sampling,
        )  # fmt: skip

    tested('dense', study.config('dit_{}'), dense)
    checkpoint = trained('cheap_guidance', elastic)  # judged as its config guides
    tested('full_guidance', elastic, checkpoint, 'model.cfg_prune=None')
    for budget in args.budgets or study.budgets:
        name = f'elastic_{budget:g}'
        tested(name, elastic, checkpoint, 'model.cfg_prune=None', budget=budget)
    for budget in study.specialised if args.specialised is None else args.specialised:
        config = args.work_dir / f'only_{round(1000 * budget)}_seed{seed}.py'
        base = os.path.relpath(sparse, config.parent)
        prune = dict(budgets.choose(budget).prune, _delete_=True)
        config.write_text(f'_base_ = {base!r}\n\nmodel = dict(prune={prune!r})\n')
        trained(f'only_{budget:g}', config)
    return found


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.budget import Budgets
    from mmsparsedit.apis.launch import load_config
    from mmsparsedit.apis.runs import measure_speed, read_run, runs_table

    os.environ.setdefault('OMP_NUM_THREADS', '1')
    init_default_scope('mmsparsedit')
    study = STUDIES[args.data]
    model = load_config(str(study.config('{}_cheap_guidance'))).model
    budgets = Budgets({**model, 'cfg_prune': None, 'distillation': None})
    found = [run_seed(args, study, budgets, seed) for seed in args.seeds]
    runs = []
    for name in found[0]:
        for folders in found:
            runs.append(read_run(folders[name]))
            runs[-1].name, runs[-1].recipe = name, {}
    dense_cost = runs[0].metrics[COST]
    for run in runs:
        run.metrics['share'] = run.metrics[COST] / dense_cost
    keys = ['share=share of the dense MACs', *study.keys]
    if args.rounds:
        first = {run.name: run for run in reversed(runs)}
        measure_speed(list(first.values()), SPEED_BATCH, args.rounds, 'cpu')
        for run in runs:
            run.metrics[SPEED] = first[run.name].metrics[SPEED]
        keys.append(f'{SPEED}=images/s')
    figures = [dict(run=run.name, metrics=run.metrics) for run in runs]
    show_table(runs_table(runs, keys), figures, args)
    if args.plot:
        draw(runs, study.distance, args.plot)


def draw(runs, distance_key: str, out: Path) -> None:
    """Distance against cost, with the spread over the seeds."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    from mmsparsedit.visualization.colours import DENSE as GREY
    from mmsparsedit.visualization.colours import MEAN, PAPER, SPARSE
    from mmsparsedit.visualization.pictures import save_figure

    def series(prefix: str):
        names = dict.fromkeys(run.name for run in runs if run.name.startswith(prefix))
        for name in names:
            same = [run.metrics for run in runs if run.name == name]
            values = [metrics[distance_key] for metrics in same]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            yield same[0]['share'], statistics.fmean(values), spread

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    for prefix, label, colour, style in (
        ('elastic_', 'one elastic checkpoint', SPARSE, 'o-'),
        ('only_', 'trained for one budget', MEAN, 's'),
        ('cheap_', 'elastic, unconditional half without its middle', PAPER, '^'),
    ):
        x, y, spread = zip(*sorted(series(prefix)), strict=True)
        axis.errorbar(x, y, spread, fmt=style, color=colour, label=label, capsize=3)
    [(_, distance, spread)] = series('dense')
    axis.axhline(distance, color=GREY, linestyle=':', label='dense')
    axis.axhspan(distance - spread, distance + spread, color=GREY, alpha=0.15)
    axis.set_xlabel('share of the dense MACs of a sample')
    axis.set_ylabel('Fréchet distance')
    axis.set_ylim(0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    save_figure(out, figure, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""One elastic checkpoint at many budgets beside models trained for one: ``docs/budgets.md``.

    python tools/analysis_tools/run_budgets.py --document docs/budgets.md budgets \
        --plot docs/images/budgets.png

For each seed, from the dense model of ``run_conversions.py``: an elastic model, fitted and
distilled, tested at each budget, and at its own schedule with full guidance and with guidance whose
unconditional half leaves the middle out; for some budgets a model trained for it alone, as long and
in the same way. Runs that a work dir holds already are not repeated.
"""

import argparse
import os
import statistics
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import run_tool
from mmsparsedit.apis.studies import STUDIES, length, run_once

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
    parser.add_argument('--plot', type=Path, help='PNG to draw')
    parse_table(parser)
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.budget import Budgets
    from mmsparsedit.apis.launch import load_config
    from mmsparsedit.apis.runs import measure_speed, read_run, runs_table

    os.environ.setdefault('OMP_NUM_THREADS', '1')
    init_default_scope('mmsparsedit')
    study = STUDIES[args.data]
    sampling = study.sampling
    iterations = study.iterations * args.percent // 100
    config_dense, config_elastic, sparse = map(
        study.config, ('dit_{}', '{}_cheap_guidance', '{}_distill')
    )
    elastic_model = load_config(str(config_elastic)).model
    elastic_model.update(cfg_prune=None, distillation=None)
    budgets = Budgets(elastic_model)
    whole = 'model.cfg_prune=None'
    found: dict[str, list[Path]] = {}
    for seed in args.seeds:

        def folder(name: str, seed=seed) -> Path:
            return args.work_dir / f'{name}_seed{seed}'

        chance = f'randomness.seed={seed}'
        dense = study.dense(args.work_dir, seed)

        def trained(name: str, config: Path, dense=dense, chance=chance, seed=seed) -> str:
            start = folder(f'fit_{name}') / 'fitted.pth'
            run_once(
                start.parent, start.name, 'model_converters/fit_start.py', config, dense,
                '--out', start, '--seed', str(seed), '--batches', '16',
            )  # fmt: skip
            run_once(
                folder(name), 'metrics.json', 'train.py', config, '--work-dir', folder(name),
                '--cfg-options', chance, f'load_from={start}',
                f'model.distillation.teacher={dense}',
                *length(iterations), *sampling,
            )  # fmt: skip
            return read_run(folder(name)).checkpoint

        def tested(
            name: str, config: Path, checkpoint: str, *options: str, budget=None, chance=chance
        ) -> None:
            run_once(
                folder(name), 'metrics.json', 'test.py', config, checkpoint, '--work-dir',
                folder(name), *(['--budget', str(budget)] if budget else []),
                '--cfg-options', chance, *options, *sampling,
            )  # fmt: skip
            found.setdefault(name, []).append(folder(name))

        tested('tested', config_dense, dense)
        checkpoint = trained('elastic', config_elastic)
        for budget in study.budgets if args.budgets is None else args.budgets:
            tested(f'elastic_{budget:g}', config_elastic, checkpoint, whole, budget=budget)
        tested('full_guidance', config_elastic, checkpoint, whole)
        tested('cheap_guidance', config_elastic, checkpoint)
        for budget in study.specialised if args.specialised is None else args.specialised:
            config = folder(f'alone_{budget:g}').with_suffix('.py')
            base = os.path.relpath(sparse, config.parent)
            prune = dict(budgets.choose(budget).prune, _delete_=True)
            config.write_text(f'_base_ = {base!r}\n\nmodel = dict(prune={prune!r})\n')
            checkpoint_alone = trained(f'alone_{budget:g}', config)
            tested(f'only_{budget:g}', config, checkpoint_alone)
    runs = []
    for name, folders in found.items():
        for each in folders:
            runs.append(read_run(each))
            runs[-1].name, runs[-1].recipe = name.replace('tested', 'dense'), {}
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
    figure.savefig(out, dpi=110)
    plt.close(figure)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

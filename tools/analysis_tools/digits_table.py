"""Dense against sparse on digits, sampler by sampler: trains nothing, samples and measures.

    python tools/analysis_tools/digits_table.py --out docs/digits.md

Each row samples the same requests. Rows that the JSON beside the table holds already are not made
again. Times come last: two rounds over all rows in turn, the quicker of the two, sampling alone.
"""

import argparse
import json
import platform
import time
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, run_tool

GAUSSIAN = (
    ('ddpm', 250),
    ('ddim', 25),
    ('dpmsolver++', 15),
)
FLOW = (('euler', 5), ('euler', 10))
MODELS = (  # name, config, iteration of the checkpoint, samplers
    ('dense', 'dit_digits', 1500, GAUSSIAN),
    ('sparse', 'digits', 1500, GAUSSIAN),
    ('sparse, fine-tuned', 'digits_finetune', 150, (('ddim', 25),)),
    ('dense flow', 'dit_digits_rflow', 1500, FLOW),
    ('sparse flow', 'digits_rflow', 1500, FLOW),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--work-dirs', default='work_dirs', help='where train.py left its runs')
    parser.add_argument('--num-samples', type=int, default=1000)
    parser.add_argument('--cfg-scale', type=float, help='default: that of the config')
    parser.add_argument('--out', required=True, help='Markdown file; JSON goes beside it')
    parser.add_argument('--readme', help='also put the DDIM rows between its digits marks')
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.evaluation.files import sha256_of

    checkpoints = {
        config: Path(args.work_dirs) / config / f'iter_{iteration}.pth'
        for _, config, iteration, _ in MODELS
    }
    absent = [config for config, path in checkpoints.items() if not path.is_file()]
    if absent:
        commands = ' && '.join(f'python tools/train.py configs/sparsedit/{c}.py' for c in absent)
        raise ConfigError(f'no checkpoints of {", ".join(absent)} in {args.work_dirs}: {commands}')
    cache = Path(args.out).with_suffix('.json')
    known = json.loads(cache.read_text()) if cache.is_file() else []
    rows = []
    jobs = [(m[0], m[1], *s) for m in MODELS for s in m[3]]
    jobs.sort(key=lambda job: (job[2], job[3]))  # dense beside sparse
    for name, config, sampler, steps in jobs:
        wanted = dict(
            config=config,
            sampler=sampler,
            steps=steps,
            num_samples=args.num_samples,
            checkpoint=sha256_of(checkpoints[config]),
        )
        found = [row for row in known if wanted.items() <= row.items()]
        rows.append(
            found[0] if found else measure(args, name, config, checkpoints[config], sampler, steps)
        )
        print(markdown_row(rows[-1]), flush=True)
    seconds = [
        [
            time_sampling(args, config, checkpoints[config], sampler, steps)
            for _, config, sampler, steps in jobs
        ]
        for _ in range(2)
    ]
    for row, times in zip(rows, zip(*seconds, strict=True), strict=True):
        row['seconds_image'] = min(times)
    write(args, rows)


def build(args, config_name: str, checkpoint: Path, sampler: str, steps: int):
    """The generator with that sampler, its config, and the requests."""
    from mmsparsedit.apis import choose_sampler, init_model
    from mmsparsedit.apis.launch import load_config
    from mmsparsedit.datasets import SampleRequests

    config = load_config(f'configs/sparsedit/{config_name}.py')
    choose_sampler(config.model, sampler, steps, args.cfg_scale)
    data = SampleRequests(args.num_samples, num_classes=10)
    return init_model(config, checkpoint), config, [data[i] for i in range(len(data))]


def time_sampling(args, *job) -> float:
    """Seconds an image, of one batch of 50."""
    from mmsparsedit.apis import generate

    generator, _, requests = build(args, *job)
    requests = (requests * 50)[:50]
    list(generate(generator, requests[:2]))
    began = time.perf_counter()
    list(generate(generator, requests, batch_size=50))
    return (time.perf_counter() - began) / len(requests)


def measure(args, name: str, config_name: str, checkpoint: Path, sampler: str, steps: int) -> dict:
    from mmsparsedit.apis import generate
    from mmsparsedit.apis.cost import cost_report
    from mmsparsedit.evaluation import DigitsMetric
    from mmsparsedit.evaluation.files import sha256_of

    generator, config, requests = build(args, config_name, checkpoint, sampler, steps)
    results = list(generate(generator, requests, batch_size=250))
    metric = DigitsMetric()
    metric.process(None, [result.to_dict() for result in results])
    cost = cost_report(config.model)
    return dict(
        model=name,
        config=config_name,
        sampler=sampler,
        steps=steps,
        checkpoint=sha256_of(checkpoint),
        nfe=cost['sampler']['nfe'],
        mmacs_call=1e3 * cost['mean_sampler']['gmacs'],
        gmacs_image=cost['mean_sampler']['gmacs'] * cost['sampler']['nfe'],
        seconds_image=float('nan'),
        **metric.compute_metrics(metric.results),
    )


HEADER = (
    '| model | sampler | NFE | MMACs a call | GMACs an image | ms an image | recognised '
    '| Fréchet |\n'
    '|---|---|---|---|---|---|---|---|'
)


def markdown_row(row: dict) -> str:
    return (
        f'| {row["model"]} | {row["sampler"]} {row["steps"]} | {row["nfe"]} '
        f'| {row["mmacs_call"]:.1f} | {row["gmacs_image"]:.2f} | {1e3 * row["seconds_image"]:.1f} '
        f'| {row["recognised"]:.1f} % | {row["frechet"]:.2f} |'
    )


def write(args: argparse.Namespace, rows: list[dict]) -> None:
    import torch

    first = rows[0]
    hardware = f'{platform.machine()} CPU, {torch.get_num_threads()} threads, fp32'
    lines = [
        '# Digits: dense against sparse',
        '',
        f'Made by `python tools/analysis_tools/digits_table.py --out {args.out}` from the runs of '
        '`tools/train.py` with the configs of `configs/sparsedit` and their seed 0; '
        f'{args.num_samples} samples a row, the same requests in each; torch {torch.__version__}, '
        f'{hardware}.',
        '',
        '"Recognised" is the share of samples that a classifier fitted on real digits takes for '
        'the digit that was asked for; on real digits it was not fitted on it is right in '
        f'{first["classifier_held_out"]:.1f} %. The Fréchet distance is in the space of its last '
        'hidden layer (64); between two halves of the real digits it is '
        f'{first["frechet_real_halves"]:.2f}. NFE counts guidance twice.',
        '',
        HEADER,
        *map(markdown_row, rows),
        '',
    ]
    Path(args.out).write_text('\n'.join(lines))
    if args.readme:
        insert(Path(args.readme), rows, Path(args.out))
    Path(args.out).with_suffix('.json').write_text(json.dumps(rows, indent=2) + '\n')


def insert(readme: Path, rows: list[dict], document: Path) -> None:
    """Put the DDIM rows between the digits marks of the README."""
    from mmsparsedit.apis.documents import replace_marked

    replace_marked(
        readme,
        'digits',
        [
            '![digits of the sparse model](docs/images/digits.png)',
            '',
            HEADER,
            *(markdown_row(row) for row in rows if row['sampler'] == 'ddim'),
            '',
            f'All rows, and how they were made: [{document}]({document}).',
        ],
    )


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

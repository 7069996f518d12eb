"""Speed on the clock: ``python tools/analysis_tools/benchmark.py CONFIG --baseline CONFIG2``.

    benchmark.py configs/sparsedit/xl_512.py --baseline configs/sparsedit/dit_xl_512.py \
        --device cuda --dtype bf16 --compile --batch-size 128 64 32 --steps-per-stage 5
    benchmark.py --preset paper --device cuda --attention unfused fused --json paper.json
    benchmark.py --sweep --device cuda --dtype bf16 --compile --plot sweep.png

Both sides run in turn in one process, with random weights and inputs; the autoencoder is left out.
"""

import argparse
import json
from pathlib import Path

from mmsparsedit.apis.launch import load_config, parse_options, parse_sampling, run_tool

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', help='config of the model; or a preset')
    parser.add_argument(
        '--baseline',
        help="config of what it is compared with; 'plain' is the config itself without --compile, "
        '--cuda-graphs, --fp8 and --cache-interval',
    )
    parser.add_argument(
        '--preset', choices=('paper',), help="rows of the paper's tables, beside its figures"
    )
    parser.add_argument('--sweep', action='store_true', help='DiT-XL at 256, 512 and 1024 px')
    parser.add_argument('--mode', choices=('sample', 'train'), default='sample')
    parser.add_argument('--device', help='cpu or cuda (default: cuda where there is one)')
    parser.add_argument('--dtype', choices=('fp32', 'bf16'), default='fp32')
    parser.add_argument(
        '--attention', nargs='+', choices=('fused', 'unfused'), default=['fused'],
        help="unfused computes the score matrix, as the paper's baseline; both, one after another",
    )  # fmt: skip
    parser.add_argument('--compile', action='store_true', help='torch.compile, per stage')
    parser.add_argument('--cuda-graphs', action='store_true', help='one CUDA graph per stage')
    parser.add_argument('--fp8', action='store_true', help='float8 linear maps (needs bf16)')
    parser.add_argument('--cache-interval', type=int, default=1, help='step cache; 1 is off')
    parser.add_argument(
        '--batch-size', type=int, nargs='+',
        help='the largest that fits for both sides is taken (default: 8, presets 128, Latte 2, and '
        'halves of it)',
    )  # fmt: skip
    parser.add_argument(
        '--steps-per-stage', type=int, metavar='K',
        help='K network calls of each stage, weighted by how often the sampler comes there, '
        'instead of whole trajectories',
    )  # fmt: skip
    parser.add_argument('--rounds', type=int, default=5, help='measurements of each side')
    parser.add_argument(
        '--profile', action='store_true', help='afterwards, which kernels the time goes to'
    )
    parser.add_argument('--threads', type=int, help='of the CPU')
    parser.add_argument('--json', help='write all figures to this file')
    parser.add_argument('--plot', help='bar chart (PNG)')
    parse_sampling(parser)
    parse_options(parser)
    args = parser.parse_args()
    given = [bool(args.config), bool(args.preset), args.sweep]
    if sum(given) != 1:
        parser.error('give a CONFIG, or --preset paper, or --sweep')
    if args.baseline and not args.config:
        parser.error('--baseline goes with a CONFIG')
    return args


def main(args: argparse.Namespace) -> None:
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis import benchmark_report as shown
    from mmsparsedit.apis.benchmark import benchmark

    init_default_scope('mmsparsedit')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.config:
        rows = [shown.Row('', args.config, args.baseline, 8)]
    else:
        rows = shown.preset('sweep' if args.sweep else args.preset, CONFIGS)
    done, reports = [], []
    for row in rows:
        models = {Path(row.config).stem: model_config(row.config, args)}
        plain = []
        if row.baseline == 'plain':
            plain = [f'{Path(row.config).stem} plain']
            models[plain[0]] = model_config(row.config, args)
        elif row.baseline:
            name = Path(row.baseline).stem
            name += ' (baseline)' if name in models else ''
            models[name] = model_config(row.baseline, args)
        sizes = args.batch_size or [row.batch >> i for i in range(row.batch.bit_length())]
        for attention in args.attention:
            done.append(row)
            setting = build_setting(args, attention)
            reports.append(benchmark(models, setting, sizes, plain))
            print(shown.format_report(reports[-1]), flush=True)
    if not args.config:
        print(shown.format_rows(done, reports))
    if args.json:
        content = reports if len(reports) > 1 else reports[0]
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')
    if args.plot and args.config:
        shown.plot_reports(reports, args.plot)
    elif args.plot:
        shown.plot_rows(done, reports, args.plot)


def model_config(path: str, args: argparse.Namespace) -> dict:
    from mmsparsedit.apis import choose_sampler

    config = load_config(path, args.cfg_options)
    choose_sampler(config.model, args.sampler, args.num_steps, args.cfg_scale)
    return config.model.to_dict()


def build_setting(args: argparse.Namespace, attention: str):
    import torch

    from mmsparsedit.apis.benchmark import Setting

    levers: dict = {name: True for name in ('compile', 'cuda_graphs', 'fp8') if getattr(args, name)}
    if args.cache_interval != 1:
        levers['cache_interval'] = args.cache_interval
    return Setting(
        mode=args.mode,
        device=args.device or ('cuda' if torch.cuda.is_available() else 'cpu'),
        dtype=args.dtype,
        attention=attention,
        acceleration=levers,
        steps_per_stage=args.steps_per_stage,
        rounds=args.rounds,
        profile=args.profile,
    )


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

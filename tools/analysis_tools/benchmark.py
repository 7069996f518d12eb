"""Speed on the clock: ``python tools/analysis_tools/benchmark.py CONFIG --baseline CONFIG2``.

    benchmark.py configs/sparsedit/xl_512.py --baseline configs/sparsedit/dit_xl_512.py \
        --device cuda --dtype bf16 --compile --batch-size 128 64 32 --steps-per-stage 5
    benchmark.py --preset paper --device cuda --attention unfused fused --json paper.json
    benchmark.py --sweep --device cuda --dtype bf16 --compile --plot sweep.png

Both sides run in turn in one process, with random weights and inputs; the autoencoder is left out.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmsparsedit.apis.launch import (
    ConfigError,
    output_file,
    parse_options,
    parse_sampling,
    run_tool,
)
from mmsparsedit.utils.files import write_text

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LEVERS = ('compile', 'cuda_graphs', 'fp8', 'cache_interval')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add('config', nargs='?', help='config of the model; or a table of cases, by --preset')
    add('--baseline', help="config of what it is compared with; 'plain' is the config itself "
        'without --compile, --cuda-graphs, --fp8 and --cache-interval')
    add('--preset', metavar='NAME', help="a table of cases: 'paper', rows of the paper's tables, "
        'beside its figures; or a file (YAML, JSON) as those in configs/benchmarks')
    add('--sweep', action='store_true', help='DiT-XL at 256, 512 and 1024 px')
    # given here, these fields of a case replace what a table says
    add('--mode', choices=('sample', 'train'), help='(default: sample)')
    add('--device', help='cpu or cuda (default: cuda where there is one)')
    add('--dtype', choices=('fp32', 'bf16'), help='(default: fp32)')
    add('--attention', nargs='+', choices=('fused', 'unfused'), help='unfused computes the score '
        "matrix, as the paper's baseline; both, one after another (default: fused)")
    add('--compile', action='store_true', help='torch.compile, per stage')
    add('--cuda-graphs', action='store_true', help='one CUDA graph per stage')
    add('--fp8', action='store_true', help='float8 linear maps (needs bf16)')
    add('--cache-interval', type=int, help='step cache; 1 is off')
    add('--batch-size', type=int, nargs='+', dest='batch', help='the largest that fits for both '
        'sides is taken (default: 8, presets 128, Latte 2, and halves of it)')
    add('--steps-per-stage', type=int, metavar='K', help='K network calls of each stage, weighted '
        'by how often the sampler comes there, instead of whole trajectories')
    add('--rounds', type=int, help='measurements of each side (default: 5)')
    add('--profile', action='store_true', default=None, help='afterwards, which kernels the time '
        'goes to')
    # fmt: on
    add('--threads', type=int, help='of the CPU')
    add('--json', type=output_file, help='write all figures to this file, after each case')
    add('--plot', type=output_file, help='bar chart (PNG)')
    parse_sampling(parser)
    parse_options(parser)
    args = parser.parse_args()
    if sum(map(bool, (args.config, args.preset, args.sweep))) != 1:
        parser.error('give a CONFIG, or --preset paper, or --sweep')
    if args.baseline and not args.config:
        parser.error('--baseline goes with a CONFIG')
    return args


def main(args: argparse.Namespace) -> None:
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.benchmark import Case, benchmark, read_cases, read_model
    from mmsparsedit.apis.benchmark_report import format_report, format_rows, plot

    init_default_scope('mmsparsedit')
    if args.threads is not None and args.threads < 1:
        raise ConfigError(f'--threads: got {args.threads}, expected at least 1.')
    if args.cache_interval is not None and args.cache_interval < 1:
        raise ConfigError(f'--cache-interval: got {args.cache_interval}, expected 1 (off) or more.')
    if args.threads:
        torch.set_num_threads(args.threads)
    sampling = (args.sampler, args.num_steps, args.cfg_scale)
    read = partial(read_model, CONFIGS, args.cfg_options or {}, sampling)
    if args.config:
        cases = [Case(Path(args.config).stem, args.config, args.baseline)]
    else:
        cases = read_cases('sweep' if args.sweep else args.preset, CONFIGS / 'benchmarks')
    reports: list[dict] = []
    for case in cases:
        for attention in args.attention or [case.attention]:
            reports.append(benchmark(as_asked(case, args, attention), read))
            print(format_report(reports[-1]), flush=True)
            if args.json:
                content = reports if len(reports) > 1 else reports[0]
                write_text(args.json, json.dumps(content, indent=2) + '\n')
    if not args.config:
        print(format_rows(reports))
    if args.plot:
        plot(reports, args.plot)


def as_asked(case, args: argparse.Namespace, attention: str):
    """The case with what the command line gives in place of its own."""
    from mmsparsedit.apis.devices import check_device

    names = ('mode', 'dtype', 'batch', 'steps_per_stage', 'rounds', 'profile')
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    levers = {name: getattr(args, name) for name in LEVERS if getattr(args, name)}
    device = check_device(args.device)
    return replace(
        case, **given, device=device, attention=attention, acceleration=case.acceleration | levers
    )


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

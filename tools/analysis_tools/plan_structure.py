"""A sparse structure for a dense checkpoint: ``plan_structure.py CONFIG CHECKPOINT --budget B``.

    python tools/analysis_tools/plan_structure.py configs/sparsedit/dit_digits.py \
        work_dirs/dit_digits/iter_1500.pth --budget 0.6 --out planned.py

Every segment is made sparse by itself and its merges are fitted to the dense model; what that does
to the output, over timesteps, and what it costs decide segments, module boundaries and grids of the
stages. The best few are then measured as a whole, and the best is written as a config to train.
"""

import argparse
import json

from mmsparsedit.apis.launch import (
    ConfigError,
    load_config,
    output_file,
    parse_options,
    run_tool,
)
from mmsparsedit.utils.files import write_text


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of the dense model or a sparse one, with training data')
    parser.add_argument('checkpoint', help='of the dense model, in any layout of load_pretrained')
    parser.add_argument(
        '--budget', type=float, required=True, help="share of the dense model's MACs, such as 0.6"
    )
    parser.add_argument('--out', type=output_file, default='planned.py', help='config to write')
    parser.add_argument('--source', default='auto', help='layout of CHECKPOINT (default: found)')
    parser.add_argument('--max-pooled', type=int, default=4, help='layers without attention')
    parser.add_argument('--max-sparse', type=int, default=5, help='sparse layers of a module')
    parser.add_argument('--frames', type=int, help='of the sparse grids of a video (default: half)')
    parser.add_argument(
        '--fit-batches', type=int, default=2, help='of training data, for each stage and grid'
    )
    parser.add_argument('--batch-size', type=int, help="default: the config's")
    parser.add_argument('--finalists', type=int, default=4, help='measured as a whole')
    parser.add_argument('--seed', type=int, default=0, help='of data and noise')
    parser.add_argument('--device', help='default: the GPU where there is one')
    parse_options(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.planning import plan_structure, planned_config

    if args.out.suffix != '.py':
        raise ConfigError(f'--out {str(args.out)!r} must end in .py.')
    for name in ('max_sparse', 'fit_batches', 'finalists'):
        if getattr(args, name) < 1:
            raise ConfigError(f'--{name.replace("_", "-")} must be at least 1.')
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    found = plan_structure(
        config,
        args.checkpoint,
        args.budget,
        source=args.source,
        most_pooled=args.max_pooled,
        most_sparse=args.max_sparse,
        frames=args.frames,
        fit_batches=args.fit_batches,
        batch_size=args.batch_size,
        finalists=args.finalists,
        seed=args.seed,
        device=args.device or get_device(),
        progress=lambda text: print(text, flush=True),
    )
    print()
    for judged in [*found.judged, *([found.own] if found.own else [])]:
        print(judged)
    chosen = found.judged[0]
    text = planned_config(args.config, args.out, config, chosen, args.checkpoint, args.budget)
    write_text(args.out, text)
    numbers = args.out.with_suffix('.json')
    figures = dict(
        budget=args.budget,
        finalists=[
            dict(shown=each.shown, share=each.share, distance=each.distance,
                 predicted=each.predicted, grids=each.prune.get('grids'))
            for each in [*found.judged, *([found.own] if found.own else [])]
        ],
        **found.sensitivity.figures(),
    )  # fmt: skip
    write_text(numbers, json.dumps(figures, indent=1) + '\n')
    print(f'-> {args.out}, {numbers}: fit and train it as docs/convert.md says')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""Sample what you ask for: ``python tools/sample.py CONFIG CHECKPOINT --labels 3 7 --out d``."""

import argparse
import sys
import time
from pathlib import Path

from mmsparsedit.apis.launch import (
    ConfigError,
    asked_budget,
    load_config,
    parse_budget,
    parse_options,
    parse_sampling,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Every image is a request (seed, label or prompt) and depends on nothing else. '
        'Each is written as PNG that carries its request, with a labelled grid of all.'
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--labels', type=int, nargs='+', help='class labels')
    parser.add_argument('--prompt', nargs='+', help='prompts, for text to image')
    parser.add_argument('--prompts', help='file with one prompt a line')
    parser.add_argument('--seeds', default='0', help='such as 7, 0-15 or 1,4,10-12 (default 0)')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--device', help='cpu or cuda (default: cuda where there is one)')
    parser.add_argument('--out', required=True, help='folder of the images')
    parse_sampling(parser)
    parse_budget(parser)
    parse_options(parser)
    return parser.parse_args()


def parse_seeds(text: str) -> list[int]:
    """'1,4,10-12' -> [1, 4, 10, 11, 12]."""
    seeds: list[int] = []
    for part in text.split(','):
        first, dash, last = part.partition('-')
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f'--seeds {text!r}: expected numbers and ranges such as 1,4,10-12.')
        if dash and int(last) < int(first):
            raise ConfigError(f'--seeds {text!r}: {part} is empty, write {last}-{first}.')
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis import DiffusionInferencer
    from mmsparsedit.apis.devices import check_device

    if args.batch_size < 1:
        raise ConfigError(f'--batch-size: got {args.batch_size}, expected at least 1.')
    prompts = list(args.prompt or [])
    if args.prompts:
        try:
            text = Path(args.prompts).read_text(encoding='utf-8')
        except UnicodeDecodeError as error:
            raise ConfigError(f'--prompts {args.prompts} is no text in UTF-8: {error}.') from error
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    seeds = parse_seeds(args.seeds)
    config = load_config(args.config, args.cfg_options)
    inferencer = DiffusionInferencer(config, args.checkpoint, check_device(args.device))
    total = len(seeds) * max(len(prompts), len(args.labels or []), 1)
    images = inferencer(
        labels=args.labels,
        prompts=prompts or None,
        seeds=seeds,
        sampler=args.sampler,
        num_steps=args.num_steps,
        cfg_scale=args.cfg_scale,
        budget=asked_budget(args),
        batch_size=args.batch_size,
        out_dir=args.out,
        progress=progress_line(time.perf_counter(), total),
    )
    if inferencer.budget is not None:
        print(inferencer.budget)
    print(f'{len(images)} images and grid.png in {args.out}')


def progress_line(began: float, total: int):
    def show(done: int) -> None:
        seconds = time.perf_counter() - began
        left = int(seconds / done * (total - done))
        end = '\n' if done == total else '\r' if sys.stdout.isatty() else '\n'
        sys.stdout.write(
            f'sampled {done}/{total}  {done / seconds:.2f} img/s  '
            f'ETA {left // 60}:{left % 60:02d}{end}'
        )
        sys.stdout.flush()

    return show


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

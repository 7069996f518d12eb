"""Speed of the training data of a config: samples per second, and the share of time spent waiting.

First as fast as the loader goes, then with a pause of STEP milliseconds after every batch in place
of the training step. A training waits for data in a share of its time that shrinks to zero once
the loader, all workers together, is quicker than the step; raise num_workers until it is.
"""

import argparse
import itertools
import json
import os
import time

from mmsparsedit.apis.launch import load_config, output_file, run_tool
from mmsparsedit.utils.files import write_text


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config with train_dataloader')
    parser.add_argument('--batches', type=int, default=100, help='per measurement (default 100)')
    parser.add_argument(
        '--step-ms',
        type=float,
        nargs='*',
        default=[100.0],
        metavar='STEP',
        help='milliseconds of a training step; several are measured in turn (default 100)',
    )
    parser.add_argument('--num-workers', type=int, help='instead of the number of the config')
    parser.add_argument('--batch-size', type=int, help='instead of the number of the config')
    parser.add_argument('--json', type=output_file, help='write the figures to this file')
    args = parser.parse_args(argv)
    if args.batches < 1:
        parser.error(f'--batches: got {args.batches}, expected at least 1')
    if min(args.step_ms, default=0) < 0:
        parser.error(f'--step-ms: got {min(args.step_ms)}, expected milliseconds from 0')
    return args


def batch_length(batch):
    """Number of samples of a collated batch."""
    while isinstance(batch, dict):
        batch = next(iter(batch.values()))
    return len(batch)


def measure(loader, num_batches, step_seconds):
    """Read batches from the start of an epoch, repeating epochs; the first batch is not timed.

    Returns:
        dict: samples_per_s, waiting_share (of the time from the first batch on), first_batch_s
        (start of the workers and the first batch), step_ms.
    """
    started = time.perf_counter()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    next(batches)
    begin = time.perf_counter()
    waited, samples = 0.0, 0
    for _ in range(num_batches):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        samples += batch_length(batch)
        if step_seconds:
            time.sleep(step_seconds)
    total = time.perf_counter() - begin
    return {
        'step_ms': step_seconds * 1000,
        'samples_per_s': samples / total,
        'waiting_share': waited / total,
        'first_batch_s': begin - started,
    }


def main(argv=None):
    args = parse_args(argv)

    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    config = load_config(args.config)
    if not config.get('train_dataloader'):
        raise ValueError(f'{args.config} has no train_dataloader: name a training config')
    settings = config.train_dataloader
    for key in ('num_workers', 'batch_size'):
        if getattr(args, key) is not None:
            settings[key] = getattr(args, key)
    if not settings.get('num_workers'):
        settings['persistent_workers'] = False
        settings.pop('prefetch_factor', None)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    loader = Runner.build_dataloader(settings, seed=0)
    print(
        f'{type(loader.dataset).__name__} of {len(loader.dataset)} items, batch '
        f'{settings.get("batch_size")}, {loader.num_workers} workers, {os.cpu_count()} cores'
    )
    results = []
    for step in [0.0, *args.step_ms]:
        result = measure(loader, args.batches, step / 1000)
        results.append(result)
        print(
            f'step {step:8.1f} ms: {result["samples_per_s"]:10.0f} samples/s, waiting '
            f'{result["waiting_share"]:6.1%} of the time, first batch after '
            f'{result["first_batch_s"]:.2f} s',
            flush=True,
        )
    if args.json:
        write_text(args.json, json.dumps(results, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    run_tool(main)

"""Sample video generators side by side: one table of quality, cost and speed, one contact sheet.

    python tools/misc/compare_videos.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] \\
        --table docs/moving_digits.md --sheet docs/images/moving_digits.png

Every generator answers the requests of the first config's test_dataloader and is measured by its
test_evaluator. Batches of the generators alternate, so that whatever else the machine does slows
all of them; EMA weights.
"""

import argparse
import platform
import time
from pathlib import Path

from mmsparsedit.apis.launch import load_config, run_tool


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT')
    parser.add_argument('--table', type=Path, required=True, help='Markdown file of the table')
    parser.add_argument('--sheet', type=Path, help='PNG of the first clips of each generator')
    parser.add_argument('--clips', type=int, default=10, help='clips per generator on the sheet')
    parser.add_argument('--num-samples', type=int, help='requests; default: as the config says')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args(argv)
    if len(args.models) % 2:
        parser.error(f'expected pairs of CONFIG and CHECKPOINT, got {len(args.models)} names')
    return args


def main(args: argparse.Namespace) -> None:
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis import init_model
    from mmsparsedit.engine.video_pictures import contact_sheet
    from mmsparsedit.registry import DATASETS

    configs = [load_config(path) for path in args.models[::2]]
    names = [Path(path).stem for path in args.models[::2]]
    init_default_scope('mmsparsedit')
    models = [
        init_model(config, checkpoint, args.device)
        for config, checkpoint in zip(configs, args.models[1::2], strict=True)
    ]
    loader = configs[0].test_dataloader
    if args.num_samples:
        loader.dataset.num_samples = args.num_samples
    requests = DATASETS.build(loader.dataset)
    samples: list[list] = [[] for _ in models]
    seconds = [0.0] * len(models)
    for start in range(0, len(requests), loader.batch_size):
        chosen = range(start, min(start + loader.batch_size, len(requests)))
        batch = torch.utils.data.default_collate([requests[i] for i in chosen])
        for k, model in enumerate(models):
            began = time.perf_counter()
            samples[k] += model.predict(**batch)
            seconds[k] += time.perf_counter() - began
    columns = [
        measures(config, model, found, len(requests) / elapsed)
        for config, model, found, elapsed in zip(configs, models, samples, seconds, strict=True)
    ]
    args.table.parent.mkdir(parents=True, exist_ok=True)
    args.table.write_text(markdown(names, columns, device_name(args.device)))
    print(args.table.read_text())
    if args.sheet:
        shown = [sample for found in samples for sample in found[: args.clips]]
        captions = [
            f'{name} {sample.get("label", "")}'
            for name, found in zip(names, samples, strict=True)
            for sample in found[: args.clips]
        ]
        sheet = contact_sheet(
            [sample.video for sample in shown], captions, columns=len(models), cell=48
        )
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(args.sheet, optimize=True)


def measures(config, model, samples: list, clips_per_second: float) -> dict[str, float]:
    """Cost, speed and the metrics of a config's test_evaluator."""
    from mmsparsedit.engine.report_hook import cost_metrics
    from mmsparsedit.registry import METRICS

    metric = METRICS.build(config.test_evaluator)
    metric.process(None, [sample.to_dict() for sample in samples])
    found = metric.evaluate(len(samples))
    cost = cost_metrics(model)
    training = config.train_cfg.max_iters * config.train_dataloader.batch_size
    return {
        'GMACs, mean over t': cost['cost/gmacs_mean_t'],
        'sampled clips/s': clips_per_second,
        'training clips': float(training),
        **{key.split('/')[-1].replace('_', ' '): value for key, value in found.items()},
    }


def markdown(names: list[str], columns: list[dict[str, float]], device: str) -> str:
    lines = [f'| {device} | ' + ' | '.join(names) + ' |', '|---|' + '---|' * len(names)]
    for key in columns[0]:
        lines.append(f'| {key} | ' + ' | '.join(f'{column[key]:.4g}' for column in columns) + ' |')
    return '\n'.join(lines) + '\n'


def device_name(device: str) -> str:
    import torch

    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU, {torch.get_num_threads()} thread(s)'


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

"""Metrics of samples that anyone made: an npz, a folder of images, or a folder of videos.

python tools/analysis_tools/evaluate.py VIRTUAL_imagenet256_labeled.npz samples.npz --json out.json
python tools/analysis_tools/evaluate.py ucf101.npz work_dirs/videos --video
"""

import argparse
import json
import sys
from pathlib import Path

from mmsparsedit.apis.launch import output_file

IMAGE_METRICS = ('fid', 'sfid', 'is', 'precision', 'recall')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='FID, sFID, inception score, precision and recall of images (ADM suite), or '
        'FVD of videos (StyleGAN-V protocol), against a reference.'
    )
    parser.add_argument(
        'reference', help="ADM's npz, own npz of build_reference.py, folder of images or videos"
    )
    parser.add_argument('samples', help='npz with arr_0, folder of images or of videos')
    parser.add_argument(
        '--num-samples', type=int, help='use so many in file order; fewer are refused'
    )
    parser.add_argument('--batch-size', type=int, help='default: 64 images, 8 clips')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--cache-dir', help='of features of reference images')
    parser.add_argument(
        '--json', type=output_file, metavar='FILE', help="write metrics and recipe; '-' prints them"
    )
    parser.add_argument(
        '--weights',
        help='weights-inception-2015-12-05-6726825d.pth, or i3d_torchscript.pt with --video; '
        "default: ./checkpoints, then torch.hub's folder, then (Inception) a download",
    )
    parser.add_argument(
        '--weights-sha256',
        metavar='HEX',
        help='of --weights, where it is not the published file: an I3D script runs as code',
    )
    images = parser.add_argument_group('images')
    images.add_argument('--metrics', nargs='+', choices=IMAGE_METRICS, default=IMAGE_METRICS)
    images.add_argument(
        '--random-inception',
        type=int,
        metavar='SEED',
        help='network with seeded random weights: for trying out only, the numbers mean nothing',
    )
    videos = parser.add_argument_group('videos')
    videos.add_argument('--video', action='store_true', help='both sides hold videos')
    videos.add_argument('--frames', type=int, default=16)
    videos.add_argument(
        '--interval', type=int, default=3, help='frame interval of a reference folder'
    )
    videos.add_argument(
        '--jpeg-quality', type=int, help="with a reference folder: 75 for Latte's own figures"
    )
    videos.add_argument('--clips', type=int, default=2048, help='of a reference folder, at most')
    videos.add_argument('--size', type=int, help='crop the centre square of both and resize')
    videos.add_argument('--seed', type=int, default=0, help='of the offsets in a reference folder')
    return parser.parse_args(argv)


def evaluate_images(args: argparse.Namespace):
    """Metric and source of images, nothing computed yet."""
    from mmsparsedit.evaluation import ADMMetrics, open_images

    if args.random_inception is not None:
        extractor = {'type': 'RandomInception', 'seed': args.random_inception}
    else:
        extractor = {'type': 'InceptionExtractor', 'weights': args.weights}
        extractor |= {'sha256': args.weights_sha256}
    source = open_images(args.samples)
    metric = ADMMetrics(
        args.reference,
        args.metrics,
        extractor=extractor,
        batch_size=args.batch_size or 64,
        cache_dir=args.cache_dir,
        device=args.device,
    )
    metric.check_size(source.size)
    return metric, source, 'image'


def evaluate_videos(args: argparse.Namespace):
    """Metric and source of videos, nothing computed yet."""
    from mmsparsedit.evaluation import FVD, ClipProtocol, VideoFolder

    source = VideoFolder(
        args.samples, ClipProtocol(args.frames, 1, False, args.num_samples, args.size, args.seed)
    )
    protocol = None  # an npz knows its own
    if Path(args.reference).is_dir():
        protocol = ClipProtocol(
            args.frames, args.interval, True, args.clips, args.size, args.seed, args.jpeg_quality
        )
    metric = FVD(
        args.reference,
        protocol=protocol,
        extractor={
            'type': 'I3DExtractor',
            'weights': args.weights,
            'sha256': args.weights_sha256,
        },
        batch_size=args.batch_size or 8,
        cache_dir=args.cache_dir,
        device=args.device,
    )
    metric.check_size(source.size)
    return metric, source, 'video'


def evaluate(args: argparse.Namespace) -> tuple[dict, dict]:
    """Metrics and recipe of the samples."""
    from mmsparsedit.apis.devices import check_device
    from mmsparsedit.evaluation.cache import digest_of
    from mmsparsedit.evaluation.recipe import build_recipe

    check_device(args.device)
    for name, value in (('batch-size', args.batch_size), ('num-samples', args.num_samples)):
        if value is not None and value < 1:
            raise ValueError(f'--{name}: got {value}, expected at least 1')
    for path in (args.reference, args.samples):
        if not Path(path).exists():
            raise FileNotFoundError(f'got {path}: no such file or folder')
    metric, source, key = (evaluate_videos if args.video else evaluate_images)(args)
    total = len(source) if args.num_samples is None else args.num_samples
    if len(source) < total:
        raise ValueError(
            f'got {len(source)} samples in {args.samples}, expected {total}: make the missing ones '
            'or lower --num-samples'
        )
    index = 0
    for batch in source.batches(args.batch_size or (8 if args.video else 64), total):
        metric.process(None, [{key: item, 'index': index + i} for i, item in enumerate(batch)])
        index += len(batch)
    metrics = metric.evaluate(total)
    samples = {'path': args.samples, 'sha256': digest_of(args.samples), 'count': total}
    return metrics, build_recipe(metrics=[metric], samples=samples)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        metrics, recipe = evaluate(args)
        if str(args.json) == '-':
            print(json.dumps({'metrics': metrics, 'recipe': recipe}, indent=2, sort_keys=True))
            return 0
        for name, value in metrics.items():
            print(f'{name:32s} {value:.6g}')
        print(f'{recipe["samples"]["count"]} samples of {args.samples} against {args.reference}')
        if args.json:
            from mmsparsedit.evaluation.recipe import write_result

            write_result(args.json, metrics, recipe)
    except (ValueError, OSError, ImportError) as error:
        print(f'evaluate.py: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Build a reference file for the metrics from a folder of images, an npz or a folder of videos.

python tools/dataset_converters/build_reference.py data/imagenet/val reference.npz --size 256
python tools/dataset_converters/build_reference.py --video data/ucf101/train ucf101.npz --size 256
"""

import argparse
import sys

from mmsparsedit.apis.launch import output_file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Statistics of images (Inception) or videos (I3D) for FID, sFID, precision, '
        'recall or FVD, with provenance and hash.'
    )
    parser.add_argument('source', help='folder of images, npz with arr_0, or folder of videos')
    parser.add_argument('output', type=output_file, help='npz to write')
    parser.add_argument('--batch-size', type=int, help='default: 64 images, 8 clips')
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--size', type=int, help='crop the centre square and resize, in pixels, as training does'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the draw of images, clips, offsets')
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
    images.add_argument(
        '--num-manifold', type=int, default=10_000, help='images kept for precision and recall'
    )
    images.add_argument(
        '--random-inception',
        type=int,
        metavar='SEED',
        help='network with seeded random weights: for trying out only, the numbers mean nothing',
    )
    videos = parser.add_argument_group('videos')
    videos.add_argument('--video', action='store_true', help='the source holds videos')
    videos.add_argument('--frames', type=int, default=16)
    videos.add_argument('--interval', type=int, default=3, help='frame interval')
    videos.add_argument('--clips', type=int, default=2048, help='at most so many, one per video')
    videos.add_argument(
        '--jpeg-quality', type=int, help="pass frames through JPEG: 75 for Latte's own figures"
    )
    args = parser.parse_args(argv)
    if args.batch_size is not None and args.batch_size < 1:
        parser.error(f'--batch-size: got {args.batch_size}, expected at least 1')
    return args


def build(args: argparse.Namespace) -> dict:
    """Build the reference file; returns its provenance."""
    from mmsparsedit.apis.devices import check_device
    from mmsparsedit.evaluation import features
    from mmsparsedit.evaluation.build import build_image_reference, build_video_reference
    from mmsparsedit.evaluation.images import open_images
    from mmsparsedit.evaluation.videos import ClipProtocol, VideoFolder

    check_device(args.device)
    if args.video:
        protocol = ClipProtocol(
            args.frames, args.interval, True, args.clips, args.size, args.seed, args.jpeg_quality
        )
        videos = VideoFolder(args.source, protocol)
        extractor = features.I3DExtractor(args.weights, args.device, args.weights_sha256)
        return build_video_reference(videos, extractor, args.output, args.batch_size or 8)
    images = open_images(args.source, args.size)
    if args.random_inception is not None:
        extractor = features.RandomInception(args.random_inception, device=args.device)
    else:
        extractor = features.InceptionExtractor(
            args.weights, device=args.device, sha256=args.weights_sha256
        )
    return build_image_reference(
        images, extractor, args.output, args.batch_size or 64, args.num_manifold, args.seed
    )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        provenance = build(args)
    except (ValueError, OSError, ImportError) as error:
        print(f'build_reference.py: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    print(f'{args.output}: {provenance["count"]} samples of {provenance["source"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

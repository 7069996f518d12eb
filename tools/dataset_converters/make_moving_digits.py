"""Write videos of moving handwritten digits as mp4 files, one folder per digit.

    python tools/dataset_converters/make_moving_digits.py --out data/moving_digits

The digits are scikit-learn's 1 797; nothing is downloaded. Files: OUT/DIGIT/NUMBER.mp4, frames
enlarged by a whole factor (decord does not read some very narrow ones).
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import run_tool


def parse_args(argv=None) -> argparse.Namespace:
    from mmsparsedit.datasets.video_digits import CANVAS, VIDEO_FRAMES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder of the videos')
    parser.add_argument('--num-videos', type=int, default=1797, help='default: each digit once')
    parser.add_argument('--num-frames', type=int, default=VIDEO_FRAMES, help='of a video')
    parser.add_argument('--canvas', type=int, default=CANVAS, help='side in pixels, even')
    parser.add_argument('--enlarge', type=int, default=6, help='pixels of a file per pixel')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--codec', choices=('h264', 'mpeg4'), help='default: h264 where PyAV is installed'
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    if min(args.num_videos, args.num_frames, args.enlarge) < 1 or args.canvas % 2:
        raise ValueError(
            f'got {args.num_videos} videos of {args.num_frames} frames of {args.canvas} pixels, '
            'expected at least one of each, and an even number of pixels'
        )
    if args.out.is_dir() and any(args.out.iterdir()):
        raise ValueError(f'{args.out} is not empty: name another folder, or delete it')

    import torch

    from mmsparsedit.datasets.video_digits import moving_digits
    from mmsparsedit.visualization import save_mp4

    videos, labels, _ = moving_digits(args.num_videos, args.seed, args.num_frames, args.canvas)
    for number, (video, label) in enumerate(zip(videos, labels, strict=True)):
        frames = torch.from_numpy(video.repeat(args.enlarge, 1).repeat(args.enlarge, 2))
        path = args.out / str(label) / f'{number:05d}.mp4'
        save_mp4(path, frames.unsqueeze(1), codec=args.codec, quality=4, cell=1)
    print(f'{len(videos)} videos in {args.out}')
    return 0


if __name__ == '__main__':
    run_tool(main)

"""Clips for FVD by StyleGAN-V's protocol: which videos, which frames, which pixels.

Real videos: every third frame from a random offset, videos shorter than frames x interval left
out, one clip per video, a seeded draw if there are more videos than clips. The last frame used may
be the last of the video: 46 frames are spanned by 16 at interval 3, though 48 are asked for.
Generated videos: consecutive frames from the start. No mirroring. Letters: F frames of H x W
pixels.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmsparsedit.datasets.transforms.video import CorruptVideoError
from mmsparsedit.datasets.video_reader import (
    VIDEO_EXTENSIONS,
    FrameFolder,
    VideoFile,
    find_videos,
)

from .images import natural_order, read_image

VIDEO_SUFFIXES = (*VIDEO_EXTENSIONS, '.gif')


@dataclass(frozen=True)
class ClipProtocol:
    """How clips are cut from videos; part of the recipe of every FVD.

    ``num_clips`` None takes all. ``size`` (pixels) crops the centre square and resizes it with
    Lanczos; None leaves the frames as they are. ``jpeg_quality`` passes every frame of both sides
    through JPEG: 75 for Latte's own figures, whose frames were stored so; None does not.
    """

    num_frames: int = 16
    frame_interval: int = 3
    random_offset: bool = True
    num_clips: int | None = 2048
    size: int | None = None
    seed: int = 0
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 95:
            raise ValueError(
                f'got jpeg_quality {self.jpeg_quality}, expected 1 to 95, or None for no JPEG'
            )

    @property
    def length(self) -> int:
        """Frames that a video must have: 48 for 16 frames at interval 3."""
        return self.num_frames * self.frame_interval

    def as_dict(self) -> dict:
        return asdict(self)


REAL = ClipProtocol()
GENERATED = ClipProtocol(frame_interval=1, random_offset=False)


class VideoFolder:
    """Clips of the videos in a folder: video files, or folders of frames (two levels deep).

    Args:
        path: folder; video files anywhere below it, or subfolders that hold frame images.
        protocol: which clips.

    Attributes:
        videos: names of the videos used, in natural order, one clip each.
        left_out: names of the videos that are too short.
    """

    def __init__(self, path: str | os.PathLike, protocol: ClipProtocol = REAL) -> None:
        self.path, self.protocol = Path(path), protocol
        if not self.path.is_dir():
            raise FileNotFoundError(f'got {self.path}, expected a folder of videos')
        found = find_clip_sources(self.path)
        if not found:
            raise ValueError(
                f'got {self.path} without videos, expected files of {", ".join(VIDEO_SUFFIXES)} or '
                'folders of frame images'
            )
        lengths = {video: video_length(video) for video in found}
        long = [video for video in found if lengths[video] >= protocol.length]
        self.left_out = [self._name(video) for video in found if lengths[video] < protocol.length]
        if not long:
            raise ValueError(
                f'got {len(found)} videos in {self.path}, the longest of {max(lengths.values())} '
                f'frames, expected {protocol.length}: lower the frame interval or the frames'
            )
        rng = np.random.default_rng(protocol.seed)
        if protocol.num_clips is not None and len(long) > protocol.num_clips:
            keep = np.sort(rng.choice(len(long), protocol.num_clips, replace=False))
            long = [long[index] for index in keep]
        self._videos = long
        self.videos = [self._name(video) for video in long]
        # StyleGAN-V, dataset.py: 0 ... n - frames x interval + interval - 1, both included
        room = [lengths[video] - protocol.length + protocol.frame_interval for video in long]
        self.offsets = [int(rng.integers(n)) if protocol.random_offset else 0 for n in room]

    def _name(self, video: Path) -> str:
        return video.relative_to(self.path).as_posix()

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def size(self) -> tuple[int, int]:
        """Pixels (H, W) of the clips."""
        if self.protocol.size is not None:
            return (self.protocol.size, self.protocol.size)
        return tuple(read_frames(self._videos[0], [0]).shape[1:3])

    def frame_indices(self, index: int) -> list[int]:
        """Frames of the clip of video ``index``, counted from 0."""
        start, step = self.offsets[index], self.protocol.frame_interval
        return [start + step * frame for frame in range(self.protocol.num_frames)]

    def clip(self, index: int) -> Tensor:
        """Clip ``index``, uint8 (F, 3, H, W)."""
        frames = read_frames(self._videos[index], self.frame_indices(index))  # (F, H, W, 3)
        if self.protocol.size is not None:
            frames = np.stack([centre_square(frame, self.protocol.size) for frame in frames])
        if self.protocol.jpeg_quality is not None:
            frames = through_jpeg(frames, self.protocol.jpeg_quality)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()

    def batches(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """uint8 tensors (N, F, 3, H, W) of the first ``limit`` clips."""
        total = len(self) if limit is None else min(limit, len(self))
        for start in range(0, total, size):
            clips = [self.clip(index) for index in range(start, min(start + size, total))]
            shapes = {tuple(clip.shape[-2:]) for clip in clips}
            if len(shapes) > 1:
                raise ValueError(
                    f'got frames of {sorted(shapes)} pixels in {self.path}, expected one size: '
                    'crop and resize them by giving a size'
                )
            yield torch.stack(clips)


def find_clip_sources(path: Path) -> list[Path]:
    """Video files below ``path``, else the folders below it that hold frame images."""
    names = find_videos(path, 'files', VIDEO_SUFFIXES)
    others = {os.path.splitext(name)[0] for name in names if not name.endswith('.gif')}
    # a GIF beside a video of its name, as test.py --show-dir writes, is the same video again
    names = [n for n in names if not (n.endswith('.gif') and n.removesuffix('.gif') in others)]
    names = names or [name for name in find_videos(path, 'frames') if name != '.']
    return [path / name for name in sorted(names, key=natural_order)]


class _Frames(FrameFolder):
    """Frames in natural order of their names, read as images of a folder are."""

    order = staticmethod(natural_order)
    read_frame = staticmethod(read_image)


def video_length(video: Path) -> int:
    """Frames of a video file or of a folder of frames."""
    with _naming(video):
        return len(_open(video))


def read_frames(video: Path, indices: list[int]) -> np.ndarray:
    """The named frames of a video file or of a folder of frames, uint8 (F, H, W, 3)."""
    with _naming(video):
        return _open(video).read(indices)


def _open(video: Path) -> _Frames | VideoFile:
    return _Frames(video) if video.is_dir() else VideoFile(video)


@contextmanager
def _naming(video: Path) -> Iterator[None]:
    try:
        yield
    except CorruptVideoError as error:
        raise ValueError(
            f'got {video}, expected a video: it is damaged or its codec is not read '
            f'({error.reason})'
        ) from error


def centre_square(frame: np.ndarray, size: int) -> np.ndarray:
    """Centre square of a frame (H, W, 3), resized to ``size`` with Lanczos (as Latte's tool)."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(frame[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)).copy()


def through_jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    """Frames uint8 (F, H, W, 3) as they come back from JPEG by Pillow's encoder (4:2:0)."""

    def coded(frame: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, 'JPEG', quality=quality)
        return np.asarray(Image.open(file, formats=['JPEG']))

    return np.stack([coded(frame) for frame in frames])

"""Clips of videos with or without class labels: the four data sets of Latte, and any other.

A video is damaged (nothing reads it), too short for a clip, or good; the first two are skipped,
counted and reported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch
from mmengine.dataset import BaseDataset

from mmsparsedit.registry import DATASETS, TRANSFORMS

from .damaged import DAMAGED, SkipDamaged
from .transforms.video import CorruptVideoError, ShortVideoError
from .video_reader import VIDEO_EXTENSIONS, find_videos, open_video

# what is known of a video
UNKNOWN, GOOD, FALLBACK, SHORT = 0, -1, -2, DAMAGED + 1
STATES = {
    'unknown': UNKNOWN,
    'good': GOOD,
    'read by the fallback': FALLBACK,
    'too short': SHORT,
    'damaged': DAMAGED,
}


def label_videos(
    videos: Sequence[str], num_classes: int | None, where: str
) -> tuple[list[int | None], tuple[str, ...]]:
    """Labels of videos named ``class/.../name``, and the sorted names of the classes.

    ``num_classes`` None asks for no labels: all are None.

    Raises:
        ValueError: another number of class folders, or a video outside them.
    """
    if num_classes is None:
        return [None] * len(videos), ()
    loose = [video for video in videos if '/' not in video]
    if loose:
        raise ValueError(
            f'{where}: got {loose[0]!r} outside any class folder, expected class/video. Sort the '
            'videos into one folder per class, or set num_classes=None.'
        )
    classes = tuple(sorted({video.split('/')[0] for video in videos}))
    if len(classes) != num_classes:
        raise ValueError(
            f'{where}: got {len(classes)} class folders, expected {num_classes}. Complete the '
            'folders, or set num_classes (of the data set and of the network).'
        )
    label = {name: i for i, name in enumerate(classes)}
    return [label[video.split('/')[0]] for video in videos], classes


@DATASETS.register_module()
class VideoDataset(SkipDamaged, BaseDataset):
    """Clips from a folder of video files, or of folders of frame images.

    An item is ``inputs`` (F, C, H, W) in [-1, 1] and, with classes, ``label``. A video that is
    damaged or too short is replaced (``SkipDamaged``) and counted (``count``, ``skipped``).

    Args:
        data_root: folder; videos are taken at any depth, in sorted order of their paths.
        layout: ``'files'`` for video files, ``'frames'`` for folders of images.
        num_classes: the first folder below ``data_root`` is the class, labels by sorted name, as
            UCF101. None: no labels.
        clip: arguments of ``SampleClip``.
        pipeline: transforms after decoding, from ``clip`` uint8 (F, 3, H, W) to an item.
        max_damaged_share: in [0, 1]; more damaged videos than this end the run. Short ones do not.

    Raises:
        FileNotFoundError: no such folder, no videos in it.
        ValueError: wrong number of classes; too many damaged videos, none left (at the first read
            that finds out).
    """

    items, share_name, damaged = 'videos', 'max_damaged_share', 'damaged'
    layout = 'files'
    default_clip: dict = {}
    default_pipeline: tuple[dict, ...] = (dict(type='PackClip'),)

    def __init__(
        self,
        data_root: str,
        layout: str | None = None,
        num_classes: int | None = None,
        clip: dict | None = None,
        pipeline: Sequence | None = None,
        max_damaged_share: float = 0.01,
    ) -> None:
        self.limit_damaged(max_damaged_share)
        if not os.path.isdir(data_root):
            raise FileNotFoundError(
                f'there is no folder of videos {data_root!r}: set data_root to the folder that '
                'holds them.'
            )
        self.layout = layout or self.layout
        self.num_classes = num_classes
        sample = {'type': 'SampleClip', **self.default_clip, **(clip or {})}
        self.temporal = TRANSFORMS.build(sample)
        pipeline = self.default_pipeline if pipeline is None else pipeline
        super().__init__(
            data_root=str(data_root),
            metainfo={'classes': ()},
            pipeline=[TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline],
        )
        self.watch()

    @property
    def advice(self) -> str:
        return f'Check the files, or {self.temporal.advice}'

    def load_data_list(self) -> list[dict]:
        """Paths and labels, in the order of the data set."""
        videos = find_videos(self.data_root, self.layout)
        if not videos:
            wanted = 'folders of images'
            if self.layout == 'files':
                wanted = f'files ending in {" ".join(VIDEO_EXTENSIONS)}'
            raise FileNotFoundError(
                f"{self.data_root} holds no videos: expected {wanted}. layout='files' reads video "
                "files, layout='frames' folders of frame images."
            )
        labels, classes = label_videos(videos, self.num_classes, self.data_root)
        self._metainfo['classes'] = classes
        return [
            {'video': video, **({} if label is None else {'label': label})}
            for video, label in zip(videos, labels, strict=True)
        ]

    def relative_path(self, index: int) -> str:
        """Path of a video below ``data_root``, with forward slashes."""
        return self.get_data_info(index)['video']

    def digest(self) -> str:
        """SHA-256 over the paths below ``data_root`` in order; not the frames."""
        names = '\n'.join(self.relative_path(index) for index in range(len(self)))
        return hashlib.sha256(names.encode()).hexdigest()

    def load(self, index: int) -> dict:
        """A clip of one video.

        Raises:
            CorruptVideoError: the video is damaged, or (``ShortVideoError``) too short.
        """
        info = self.get_data_info(index)
        path = os.path.join(self.data_root, info['video'])
        reader = open_video(path)
        results = {**info, 'video_path': path, 'reader': reader, 'total_frames': len(reader)}
        results = self.temporal(results)
        frames = reader.read(results['frame_indices'])  # (F, H, W, 3)
        results['clip'] = torch.from_numpy(frames).permute(0, 3, 1, 2)
        item = self.pipeline(results)
        self._states[index] = FALLBACK if reader.backend == 'av' else GOOD
        return item

    def skip(self, index: int, error: CorruptVideoError) -> None:
        """Log and count a video; short ones do not end the run."""
        super().skip(index, error, SHORT if isinstance(error, ShortVideoError) else DAMAGED)

    def count(self) -> dict[str, int]:
        """Videos by what is known of them so far, over this process and its workers."""
        return {name: len(self.positions(state)) for name, state in STATES.items()}

    def skipped(self) -> dict[str, list[str]]:
        """Paths below ``data_root`` of the videos found too short, and of the damaged ones."""
        return {
            name: [self.relative_path(index) for index in self.positions(STATES[name])]
            for name in ('too short', 'damaged')
        }

    def report(self) -> str:
        """One line: how many videos are good, short, damaged."""
        counts = ', '.join(f'{n} {name}' for name, n in self.count().items() if n)
        return f'{len(self)} videos: {counts}'


CROP_SHORT_SIDE = (
    dict(type='FlipClip', prob=0.5),
    dict(type='ResizeShortSide', size=256),
    dict(type='CenterCropClip', size=256),
    dict(type='PackClip'),
)


@DATASETS.register_module()
class FaceForensics(VideoDataset):
    """FaceForensics as Latte reads it: face crops as video files, 16 frames spread over 48."""

    layout = 'files'
    default_clip = dict(num_frames=16, frame_interval=3, rule='linspace')
    default_pipeline = CROP_SHORT_SIDE


@DATASETS.register_module()
class UCF101(VideoDataset):
    """UCF101 as Latte reads it: ``class/video.avi``, 16 frames spread over 48; 101 classes."""

    layout = 'files'
    default_clip = dict(num_frames=16, frame_interval=3, rule='linspace')
    default_pipeline = CROP_SHORT_SIDE

    def __init__(self, data_root: str, num_classes: int | None = 101, **kwargs) -> None:
        super().__init__(data_root, num_classes=num_classes, **kwargs)


@DATASETS.register_module()
class SkyTimelapse(VideoDataset):
    """SkyTimelapse as Latte reads it: folders of more than 48 frames, every third; never mirrored.

    Latte crops the centre square of the short side, then resizes it.
    """

    layout = 'frames'
    default_clip = dict(num_frames=16, frame_interval=3, rule='stride', min_frames=49)
    default_pipeline = (
        dict(type='CenterCropClip'),
        dict(type='ResizeClip', size=256),
        dict(type='PackClip'),
    )


@DATASETS.register_module()
class TaichiHD(VideoDataset):
    """Taichi-HD as Latte reads it: folders of frames of 256 x 256 pixels, every third.

    Latte keeps folders that are too short for a clip, which breaks its batches; here they are
    skipped and counted.
    """

    layout = 'frames'
    default_clip = dict(num_frames=16, frame_interval=3, rule='stride')
    default_pipeline = (dict(type='FlipClip', prob=0.5), dict(type='PackClip', size=(256, 256)))

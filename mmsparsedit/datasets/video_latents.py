"""Latents of videos: every frame encoded once as an image, clips cut from them while training.

``extract_latents.py`` reads ``VideoFrames`` and writes the folder that ``VideoLatents`` cuts clips
from. All frames are stored, so training draws new windows in every epoch, as from videos.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS, TRANSFORMS

from .latents import LatentDataset
from .transforms.video import CorruptVideoError, SampleClip, clip_indices, last_begin
from .video import label_videos
from .video_reader import find_videos, open_video


@DATASETS.register_module()
class VideoFrames(Dataset):
    """All frames of all videos as single images, in order: what ``extract_latents.py`` reads.

    An item is ``inputs`` (C, H, W) and ``label``, the number of its video; ``metainfo['classes']``
    names the videos by that number. Every video is opened once at construction to count frames.

    Args:
        data_root, layout: as ``VideoDataset``.
        pipeline: transforms of a clip of one frame; none may be random.
        min_frames: videos that are shorter are left out.
        max_corrupt_share: in [0, 1]; more damaged videos, or damaged frames, end the extraction.

    Attributes:
        skipped: why each video that was left out was.
    """

    def __init__(
        self,
        data_root: str,
        layout: str = 'files',
        pipeline: Sequence = (dict(type='PackClip'),),
        min_frames: int = 16,
        max_corrupt_share: float = 0.01,
    ) -> None:
        if not os.path.isdir(data_root):
            raise FileNotFoundError(
                f'there is no folder of videos {data_root!r}: set data_root to the folder that '
                'holds them.'
            )
        self.data_root, self.max_share = str(data_root), max_corrupt_share
        self.pipeline = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        self.skipped: dict[str, str] = {}
        self.videos, lengths = [], []
        found, damaged = find_videos(data_root, layout), 0
        for video in found:
            try:
                length = len(open_video(os.path.join(data_root, video)))
            except CorruptVideoError as error:
                self.skipped[video], damaged = error.reason, damaged + 1
                continue
            if length < min_frames:
                self.skipped[video] = f'{length} frames, a clip needs {min_frames}'
                continue
            self.videos.append(video)
            lengths.append(length)
        for video, reason in self.skipped.items():
            print_log(f'{video} is left out: {reason}', logger='current', level=logging.WARNING)
        if not lengths or damaged > max_corrupt_share * len(found):
            raise ValueError(
                f'{data_root}: of {len(found)} videos {damaged} are damaged and {len(lengths)} '
                f'can serve, expected at most {max_corrupt_share:.2%} damaged (max_corrupt_share) '
                "and one to serve. Check data_root, the files, and layout ('files' or 'frames')."
            )
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self.metainfo = dict(classes=tuple(self.videos))
        self._opened: tuple | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def digest(self) -> str:
        """SHA-256 over paths below ``data_root`` and numbers of frames; not the pixels."""
        sha = hashlib.sha256()
        for video, length in zip(self.videos, np.diff(self._starts).tolist(), strict=True):
            sha.update(f'{video} {length}\n'.encode())
        return sha.hexdigest()

    def read(self, index: int) -> dict:
        """The item of one frame, or ``dict(corrupt=dict(path=..., reason=...))``."""
        if not 0 <= index < len(self):
            raise IndexError(f'{self.data_root} has {len(self)} frames, got index {index}')
        video = int(np.searchsorted(self._starts, index, side='right')) - 1
        path = os.path.join(self.data_root, self.videos[video])
        try:
            frame = self._reader(video).read([index - int(self._starts[video])])
        except CorruptVideoError as error:
            return {'corrupt': {'path': self.videos[video], 'reason': error.reason}}
        results = {'clip': torch.from_numpy(frame).permute(0, 3, 1, 2), 'video_path': path}
        for transform in self.pipeline:
            results = transform(results)
        return {'inputs': results['inputs'][0], 'label': video}

    def _reader(self, video: int):
        """The reader of a video, kept until another is asked for; each process has its own."""
        key = (os.getpid(), video)
        if self._opened is None or self._opened[0] != key:
            path = os.path.join(self.data_root, self.videos[video])
            self._opened = (key, open_video(path))
        return self._opened[1]

    __getitem__ = read

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_opened': None}


@DATASETS.register_module()
class VideoLatents(Dataset):
    """Clips of the frames in a folder of latents that was made from ``VideoFrames``.

    An item is ``inputs`` (F, 2C, h, w), mean and log-variance of each frame (or (F, C, h, w) where
    samples were stored), and with classes ``label``. With ``num_images`` I it has I further frames,
    drawn from all videos, behind the clip, and ``image_label`` (I,) where there are classes: joint
    training as Latte's, whose images are frames of the same videos.

    Args:
        data_root, latent_shape, scale_factor, verify: as ``LatentDataset``.
        num_frames, frame_interval, rule, min_frames: as ``SampleClip``; the window is random.
        flip: mirror clips with probability 1/2, from the flipped copies; None does so where the
            folder has them, True demands them.
        num_classes: the first folder of a video's path is its class; None: no labels.
        num_images: I.

    Attributes:
        left_out: number of videos that are too short.
    """

    def __init__(
        self,
        data_root: str,
        latent_shape: Sequence[int] | None = None,
        num_frames: int = 16,
        frame_interval: int = 3,
        rule: str = 'linspace',
        min_frames: int | None = None,
        flip: bool | None = None,
        num_classes: int | None = None,
        num_images: int = 0,
        scale_factor: float | None = None,
        verify: str | None = 'background',
    ) -> None:
        if num_images < 0:
            raise ValueError(f'num_images must be at least 0, got {num_images}.')
        self.sampling = SampleClip(num_frames, frame_interval, rule, min_frames)
        self.num_images = num_images
        self.frames = LatentDataset(data_root, latent_shape, None, flip, scale_factor, verify)
        owner = self.frames.labels
        names = self.frames.metainfo['classes']
        if np.any(np.diff(owner) < 0) or owner[-1] >= len(names):
            raise ValueError(
                f'{data_root}: got latents that are no frames of videos, expected the number of '
                'the video as label, in order. Extract them from a VideoFrames data set.'
            )
        videos, first, count = np.unique(owner, return_index=True, return_counts=True)
        long = count >= self.sampling.min_frames
        self.left_out = int((~long).sum())
        if not long.any():
            raise ValueError(
                f'{data_root}: got {len(videos)} videos of at most {count.max()} frames, expected '
                f'{self.sampling.min_frames} for a clip. Take longer videos, or '
                f'{self.sampling.advice}.'
            )
        self._first, self._count = first[long], count[long]
        labels, classes = label_videos(names, num_classes, str(data_root))
        self._class_of_video = None if num_classes is None else np.array(labels)
        self._videos = videos[long]
        self.metainfo = {**self.frames.metainfo, 'classes': classes}

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> dict:
        """A clip from a random window of video ``index``."""
        rule = self.sampling
        total = int(self._count[index])
        begin = np.random.randint(last_begin(total, rule.num_frames, rule.frame_interval) + 1)
        numbers = self._first[index] + np.array(
            clip_indices(total, rule.num_frames, rule.frame_interval, rule.rule, int(begin))
        )
        images = np.random.randint(len(self.frames.labels), size=self.num_images)
        flips = np.zeros(len(numbers) + self.num_images, dtype=np.int64)
        if self.frames.flipped:
            flips[: len(numbers)] = np.random.randint(2)  # the whole clip
            flips[len(numbers) :] = np.random.randint(2, size=self.num_images)
        chosen = np.concatenate([numbers, images])
        chosen = chosen * 2 + flips if self.frames.flipped else chosen
        items = self.frames.__getitems__(chosen.tolist())
        item = dict(inputs=torch.stack([item['inputs'] for item in items]))
        if self._class_of_video is not None:
            item['label'] = int(self._class_of_video[self._videos[index]])
            if self.num_images:
                owners = self.frames.labels[images]
                item['image_label'] = torch.from_numpy(self._class_of_video[owners])
        return item

"""Transforms of clips: temporal sampling, resize, crop, flip, packing (Latte's data sets).

Clips between transforms are tensors (F, C, H, W) under the key ``clip``, values 0 ... 255: uint8 as
read, float32 once resized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mmsparsedit.registry import TRANSFORMS

from ..damaged import DamagedError
from .base import Transform

SAMPLING_RULES = ('linspace', 'stride')
POSITIONS = ('random', 'start')


class CorruptVideoError(DamagedError):
    """A video that is there but cannot be decoded."""

    what = 'cannot be read as a video'


class ShortVideoError(CorruptVideoError):
    """A sound video with fewer frames than a clip needs."""

    what = 'is too short'


def clip_indices(
    total: int, num_frames: int, frame_interval: int, rule: str, begin: int
) -> list[int]:
    """Numbers of the frames of a clip that begins at frame ``begin`` of ``total``.

    The clip lies in a window of ``num_frames * frame_interval`` frames, cut off by the end.
    ``'linspace'`` (Latte's FaceForensics and UCF101) spreads the frames over the whole window and
    truncates, which is no clean stride: 0, 3, ..., 34, 37, 40, 43, 47 of 48. ``'stride'``
    (SkyTimelapse, Taichi-HD) takes every ``frame_interval``-th.
    """
    end = min(begin + num_frames * frame_interval, total)
    if rule == 'linspace':
        return np.linspace(begin, end - 1, num_frames, dtype=int).tolist()
    return list(range(begin, end, frame_interval))


def last_begin(total: int, num_frames: int, frame_interval: int) -> int:
    """The last frame that a random window may begin at, Latte's: the very last is never used."""
    return max(0, total - num_frames * frame_interval - 1)


@TRANSFORMS.register_module()
class SampleClip(Transform):
    """Choose the frames of a clip: added ``frame_indices`` from ``total_frames``.

    Args:
        num_frames: F.
        frame_interval: frames of the video per frame of the clip.
        rule: ``'linspace'`` or ``'stride'``, see ``clip_indices``.
        min_frames: shorter videos are refused; by default those that cannot fill a clip.
        position: of the window, ``'random'`` or at the ``'start'``.

    Raises:
        ShortVideoError: the video is too short.
    """

    def __init__(
        self,
        num_frames: int = 16,
        frame_interval: int = 3,
        rule: str = 'linspace',
        min_frames: int | None = None,
        position: str = 'random',
    ) -> None:
        if num_frames < 1 or frame_interval < 1:
            raise ValueError(
                f'num_frames and frame_interval must be at least 1, got {num_frames} and '
                f'{frame_interval}.'
            )
        if rule not in SAMPLING_RULES:
            raise ValueError(f'rule must be one of {SAMPLING_RULES}, got {rule!r}.')
        if position not in POSITIONS:
            raise ValueError(f'position must be one of {POSITIONS}, got {position!r}.')
        self.num_frames, self.frame_interval = num_frames, frame_interval
        self.rule, self.position = rule, position
        fills = num_frames if rule == 'linspace' else (num_frames - 1) * frame_interval + 1
        self.min_frames = fills if min_frames is None else max(min_frames, fills)
        self.advice = 'lower num_frames or frame_interval'
        if self.min_frames > fills:
            self.advice = f'lower min_frames, {self.min_frames}: a clip spans {fills}'

    def transform(self, results: dict) -> dict:
        total = results['total_frames']
        if total < self.min_frames:
            raise ShortVideoError(
                results['video_path'], f'{total} frames, a clip needs {self.min_frames}'
            )
        begin = 0
        if self.position == 'random':
            latest = last_begin(total, self.num_frames, self.frame_interval)
            begin = int(np.random.randint(latest + 1))
        results['frame_indices'] = clip_indices(
            total, self.num_frames, self.frame_interval, self.rule, begin
        )
        return results


@TRANSFORMS.register_module()
class FlipClip(Transform):
    """Mirror a whole clip left to right with probability ``prob``."""

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be in [0, 1], got {prob}.')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        if np.random.rand() < self.prob:
            results['clip'] = results['clip'].flip(-1)
        return results


@TRANSFORMS.register_module()
class ResizeShortSide(Transform):
    """Resize frames so that the shorter side has ``size`` pixels (FaceForensics, UCF101).

    Bilinear, half-pixel centres, no antialias, as Latte.
    """

    def __init__(self, size: int) -> None:
        self.size = _positive(size)

    def transform(self, results: dict) -> dict:
        clip = results['clip']
        short = min(clip.shape[-2:])
        scale = self.size / short
        if math.floor(short * scale) < self.size:  # rounded down, e.g. from 98 pixels to 256
            scale = math.nextafter(scale, math.inf)
        # the scale itself, not the rounded size, sets where pixels are read, as in Latte
        results['clip'] = _resize(clip, scale_factor=scale)
        return results


@TRANSFORMS.register_module()
class CenterCropClip(Transform):
    """The centre square of frames, its corner rounded as Latte rounds it.

    Args:
        size: side in pixels; None takes the shorter side of the frame.

    Raises:
        ValueError: the frames are smaller.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = None if size is None else _positive(size)

    def transform(self, results: dict) -> dict:
        height, width = results['clip'].shape[-2:]
        side = self.size or min(height, width)
        if side > min(height, width):
            raise ValueError(
                f'CenterCropClip: got frames of {height} x {width} pixels, expected at least '
                f'{side}. Put ResizeShortSide({side}) before it.'
            )
        top, left = round((height - side) / 2.0), round((width - side) / 2.0)
        results['clip'] = results['clip'][..., top : top + side, left : left + side]
        return results


@TRANSFORMS.register_module()
class ResizeClip(Transform):
    """Resize frames to ``size`` x ``size`` pixels, whatever their shape (SkyTimelapse)."""

    def __init__(self, size: int) -> None:
        self.size = _positive(size)

    def transform(self, results: dict) -> dict:
        results['clip'] = _resize(results['clip'], size=(self.size, self.size))
        return results


@TRANSFORMS.register_module()
class GrayClip(Transform):
    """One channel, the mean of all: (F, C, H, W) -> (F, 1, H, W) float32."""

    def transform(self, results: dict) -> dict:
        results['clip'] = results['clip'].float().mean(dim=1, keepdim=True)
        return results


@TRANSFORMS.register_module()
class PackClip(Transform):
    """Make the item of a clip: ``inputs`` (F, C, H, W) float32, ``label`` where there is one.

    0 ... 255 becomes [-1, 1] by x / 127.5 - 1, which is Latte's /255 and Normalize(0.5, 0.5).

    Args:
        size: (H, W) that frames must have, checked where nothing resizes them; None takes any.

    Raises:
        ValueError: frames of another size.
    """

    def __init__(self, size: Sequence[int] | None = None) -> None:
        self.size = None if size is None else tuple(size)

    def transform(self, results: dict) -> dict:
        clip = results['clip']
        if self.size is not None and tuple(clip.shape[-2:]) != self.size:
            raise ValueError(
                f'{results["video_path"]}: got frames of {clip.shape[-2]} x {clip.shape[-1]} '
                f'pixels, expected {self.size[0]} x {self.size[1]}. Make frames of that size, or '
                'add ResizeShortSide and CenterCropClip to the pipeline.'
            )
        item = {'inputs': (clip.float() / 127.5 - 1).contiguous()}
        if 'label' in results:
            item['label'] = int(results['label'])
        return item


def _resize(clip: Tensor, **target) -> Tensor:
    return F.interpolate(clip.float(), mode='bilinear', align_corners=False, **target)


def _positive(size: int) -> int:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f'size must be a whole number of pixels of at least 1, got {size!r}.')
    return size

"""Transforms of images and clips; importing them registers mmcv's (RandomFlip, Normalize) too."""

from .center_crop import CenterCropADM, CenterCropPixArt, center_crop_adm
from .loading import CorruptImageError, LoadImage, PackImage, to_rgb
from .video import (
    CenterCropClip,
    CorruptVideoError,
    FlipClip,
    GrayClip,
    PackClip,
    ResizeClip,
    ResizeShortSide,
    SampleClip,
    ShortVideoError,
    clip_indices,
)

__all__ = [
    'CenterCropADM',
    'CenterCropClip',
    'CenterCropPixArt',
    'CorruptImageError',
    'CorruptVideoError',
    'FlipClip',
    'GrayClip',
    'LoadImage',
    'PackClip',
    'PackImage',
    'ResizeClip',
    'ResizeShortSide',
    'SampleClip',
    'ShortVideoError',
    'center_crop_adm',
    'clip_indices',
    'to_rgb',
]

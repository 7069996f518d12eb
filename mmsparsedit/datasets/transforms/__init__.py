"""Transforms of images and clips; importing them registers mmcv's (RandomFlip, Normalize) too."""

from .center_crop import CenterCropADM, center_crop_adm
from .loading import CorruptImageError, LoadImage, PackImage, to_rgb

__all__ = [
    'CenterCropADM',
    'CorruptImageError',
    'LoadImage',
    'PackImage',
    'center_crop_adm',
    'to_rgb',
]

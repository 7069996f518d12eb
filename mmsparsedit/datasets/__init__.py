"""Data sets, samplers and transforms."""

from . import transforms
from .digits import Digits
from .fast_dit import FastDiTFeatures
from .imagenet import ImageNet
from .latents import LatentDataset
from .requests import SampleRequests
from .samplers import SeekableSampler

__all__ = [
    'Digits',
    'FastDiTFeatures',
    'ImageNet',
    'LatentDataset',
    'SampleRequests',
    'SeekableSampler',
    'transforms',
]

"""Data sets, samplers and transforms."""

from . import transforms
from .caption_features import CaptionedLatents
from .captioned_digits import CaptionedDigits, CaptionedDigitsRequests
from .captions import CaptionedImages
from .digits import Digits
from .fast_dit import FastDiTFeatures
from .imagenet import ImageNet
from .latents import LatentDataset
from .mnist import MNIST5000
from .openmoji import OpenMoji, OpenMojiRequests
from .requests import PromptRequests, SampleRequests
from .sam import SAM, PixArtJson
from .samplers import SeekableSampler
from .video import UCF101, FaceForensics, SkyTimelapse, TaichiHD, VideoDataset
from .video_latents import VideoFrames, VideoLatents

__all__ = [
    'CaptionedDigits',
    'CaptionedDigitsRequests',
    'CaptionedImages',
    'CaptionedLatents',
    'Digits',
    'FaceForensics',
    'FastDiTFeatures',
    'ImageNet',
    'LatentDataset',
    'MNIST5000',
    'OpenMoji',
    'OpenMojiRequests',
    'PixArtJson',
    'PromptRequests',
    'SAM',
    'SampleRequests',
    'SeekableSampler',
    'SkyTimelapse',
    'TaichiHD',
    'UCF101',
    'VideoDataset',
    'VideoFrames',
    'VideoLatents',
    'transforms',
]

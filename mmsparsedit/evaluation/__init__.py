"""Metrics: statistics (torch, numpy, scipy only) and what feeds them."""

from .captioned_digits import CaptionedDigitsMetric
from .digits import DigitsMetric
from .efficientnet import EfficientNetLite0
from .features import I3DExtractor, InceptionExtractor, InceptionFeatures, RandomInception
from .images import open_images
from .metrics import FVD, ADMMetrics
from .moving_digits import MovingDigitsMetric
from .precision_recall import ManifoldEstimator, precision_recall
from .real_images import RealImagesMetric
from .recipe import build_recipe, write_result
from .references import ImageReference
from .statistics import FeatureStatistics, InceptionScore, frechet_distance, inception_score
from .store import SampleStore
from .video_references import VideoReference
from .videos import GENERATED, REAL, ClipProtocol, VideoFolder

__all__ = [
    'ADMMetrics',
    'CaptionedDigitsMetric',
    'ClipProtocol',
    'DigitsMetric',
    'EfficientNetLite0',
    'FVD',
    'FeatureStatistics',
    'GENERATED',
    'I3DExtractor',
    'ImageReference',
    'InceptionExtractor',
    'InceptionFeatures',
    'InceptionScore',
    'ManifoldEstimator',
    'MovingDigitsMetric',
    'REAL',
    'RandomInception',
    'RealImagesMetric',
    'SampleStore',
    'VideoFolder',
    'VideoReference',
    'build_recipe',
    'frechet_distance',
    'inception_score',
    'open_images',
    'precision_recall',
    'write_result',
]

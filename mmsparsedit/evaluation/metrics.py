"""FID, sFID, inception score, precision, recall and FVD for MMEngine's Evaluator.

Moments are all-reduced as tensors; features travel only for precision and recall, and only to the
first process.
"""

import os
from collections.abc import Sequence

import torch
from mmengine.device import get_device
from torch import Tensor

from mmsparsedit.registry import METRICS

from .distributed import gather_rows
from .features import I3DExtractor, InceptionExtractor, build_extractor
from .precision_recall import ManifoldEstimator
from .references import POOL_KEYS, SPATIAL_KEYS, ImageReference
from .sample_metric import SampleMetric
from .statistics import FeatureStatistics, InceptionScore, frechet_distance
from .video_references import VideoReference
from .videos import ClipProtocol, through_jpeg

ADM_METRICS = ('fid', 'sfid', 'is', 'precision', 'recall')


@METRICS.register_module()
class ADMMetrics(SampleMetric):
    """FID, sFID, inception score, precision and recall of ADM's suite, in one pass over samples.

    Keys: ``adm/fid``, ``adm/sfid``, ``adm/is``, ``adm/precision``, ``adm/recall``; with a
    :class:`RandomInception` ``adm_random_inception/...``.

    Args:
        reference: npz in ADM's format, own npz, or folder of images.
        metrics: which of the five.
        num_samples: required number of samples, 50 000 for figures of the field.
        extractor: config of the Inception, by default ``dict(type='InceptionExtractor')``.
        batch_size: for reference images.
        cache_dir: where features of reference images are kept.
        device: of the Inception and of the distances; by default MMEngine's.
    """

    def __init__(
        self,
        reference: str | os.PathLike,
        metrics: Sequence[str] = ADM_METRICS,
        num_samples: int | None = None,
        extractor: dict | InceptionExtractor | None = None,
        batch_size: int = 64,
        cache_dir: str | os.PathLike | None = None,
        device: str | None = None,
        prefix: str = 'adm',
    ) -> None:
        unknown = sorted(set(metrics) - set(ADM_METRICS))
        if unknown or not metrics:
            raise ValueError(f'got metrics {list(metrics)}, expected some of {list(ADM_METRICS)}')
        self.metrics = tuple(name for name in ADM_METRICS if name in metrics)
        self.device = device or get_device()
        self._manifold = bool({'precision', 'recall'} & set(metrics))
        images = ImageReference(reference, cache_dir, batch_size)
        extractor = build_extractor(extractor, InceptionExtractor, self.device)
        images.require('fid' in metrics, 'sfid' in metrics, self._manifold, extractor)
        super().__init__(images, extractor, num_samples, prefix)

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._pool, self._spatial = FeatureStatistics(), FeatureStatistics()
        self._score = InceptionScore()
        self._features: list[Tensor] = []
        self._gathered: Tensor | None = None  # (N, 2048), on the first process

    def update(self, samples: Tensor, index: Tensor) -> None:
        """Take in images (N, 3, H, W) uint8 and their positions (N,)."""
        features = self.extractor(samples)
        if 'fid' in self.metrics:
            self._pool.update(features.pool)
        if 'sfid' in self.metrics:
            self._spatial.update(features.spatial)
        if 'is' in self.metrics:
            self._score.update(features.logits, index)
        if self._manifold:
            self._features.append(features.pool.cpu())

    def reduce(self) -> None:
        """All-reduce the moments, gather pool features if precision or recall is asked for."""
        self._pool.all_reduce()
        self._spatial.all_reduce()
        self._score.all_reduce()
        if self._manifold:
            self._gathered = gather_rows(
                torch.cat(self._features) if self._features else torch.empty(0, 0)
            )

    def compute(self, order: Tensor) -> dict:
        """The metrics asked for, in ADM's units: precision and recall in [0, 1]."""
        result = {}
        for name, keys, found in (
            ('fid', POOL_KEYS, self._pool),
            ('sfid', SPATIAL_KEYS, self._spatial),
        ):
            if name in self.metrics:
                real = self.reference.moments(keys, self.extractor)
                result[name] = frechet_distance(
                    found.mean, found.covariance, real.mean, real.covariance
                )
        if 'is' in self.metrics:
            result['is'] = self._score.compute()
        if self._manifold:
            real = self.reference.manifold(self.extractor)
            precision, recall = ManifoldEstimator(device=self.device).evaluate(
                real, self._gathered[order]
            )
            pair = {'precision': precision, 'recall': recall}
            result |= {name: value for name, value in pair.items() if name in self.metrics}
        return result

    def describe(self) -> dict:
        """This metric's part of the recipe: reference, features, count, which of the five."""
        return {**super().describe(), 'metrics': list(self.metrics)}


@METRICS.register_module()
class FVD(SampleMetric):
    """Fréchet video distance by StyleGAN-V's protocol, on I3D features; key ``video/fvd``.

    Absolute values compare only between equal references: the recipe carries the list of videos,
    interval, crop, count, seed and hash.

    Args:
        reference: own npz of ``build_reference.py --video``, or folder of videos.
        num_samples: required number of samples, 2048 for figures of the field.
        protocol: how clips are cut from a reference folder, see :class:`ClipProtocol`; by default
            every third frame of 48 at a random offset, 2048 clips. Its ``jpeg_quality`` holds for
            the samples too.
        extractor: config of the I3D, by default ``dict(type='I3DExtractor')``.
    """

    kind, layout = 'video', '(F, C, H, W)'

    def __init__(
        self,
        reference: str | os.PathLike,
        num_samples: int | None = None,
        protocol: dict | ClipProtocol | None = None,
        extractor: dict | I3DExtractor | None = None,
        batch_size: int = 8,
        cache_dir: str | os.PathLike | None = None,
        device: str | None = None,
        prefix: str = 'video',
    ) -> None:
        if isinstance(protocol, dict):
            protocol = ClipProtocol(**protocol)
        videos = VideoReference(reference, protocol, cache_dir, batch_size)
        extractor = build_extractor(extractor, I3DExtractor, device or get_device())
        videos.require(extractor)
        super().__init__(videos, extractor, num_samples, prefix)

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._statistics = FeatureStatistics()

    def update(self, samples: Tensor, index: Tensor) -> None:
        """Take in videos (N, F, 3, H, W) uint8."""
        if samples.shape[1] != self.reference.num_frames:
            raise ValueError(
                f'got videos of {samples.shape[1]} frames, expected {self.reference.num_frames} as '
                f'the clips of the reference {self.reference.path}'
            )
        quality = self.reference.provenance['protocol']['jpeg_quality']
        if quality is not None:
            frames = samples.flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy()
            coded = torch.from_numpy(through_jpeg(frames, quality)).permute(0, 3, 1, 2)
            samples = coded.unflatten(0, samples.shape[:2]).to(samples.device)
        self._statistics.update(self.extractor(samples))

    def reduce(self) -> None:
        """All-reduce the moments."""
        self._statistics.all_reduce()

    def compute(self, order: Tensor) -> dict:
        """The distance."""
        real, found = self.reference.moments(self.extractor), self._statistics
        return {
            'fvd': frechet_distance(found.mean, found.biased_covariance, real.mean, real.covariance)
        }

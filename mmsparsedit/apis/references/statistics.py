"""Checks against repositories of metrics: ADM's evaluator and StyleGAN-V's FVD, behind the network.

Features are given to both sides: theirs need weights that are downloads, and TensorFlow.
"""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from mmsparsedit.evaluation.precision_recall import precision_recall
from mmsparsedit.evaluation.statistics import (
    FeatureStatistics,
    frechet_distance,
    inception_score,
)
from mmsparsedit.evaluation.videos import ClipProtocol, VideoFolder

from .repositories import Deviation, deviation, importing_from, stub

CLIP_LENGTHS = (48, 49, 100)


def features(count: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated and positive, as those of a network behind a ReLU; float32."""
    draw = np.random.default_rng(seed)
    mixed = draw.standard_normal((count, width)) @ draw.standard_normal((width, width))
    return np.maximum(mixed / width**0.5 + shift, 0).astype(np.float32)


def statistics_of(values: np.ndarray, batch: int = 50) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for start in range(0, len(values), batch):
        statistics.update(values[start : start + batch])
    return statistics


def check_guided_diffusion(folder: Path) -> Iterator[Deviation]:
    """Its arithmetic; what TensorFlow computes there, softmax and distances, by numpy."""
    tensorflow = stub('tensorflow.compat.v1')
    stubs = dict(
        tensorflow=stub('tensorflow'),
        tensorflow__compat=stub('tensorflow.compat', v1=tensorflow),
        tensorflow__compat__v1=tensorflow,
    )
    with importing_from(folder, **stubs) as load, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        evaluator = load('evaluations.evaluator')
        for name, width in (('FID, 2048 features', 2048), ('sFID, 2023 features', 2023)):
            real, made = features(2500, width, 0), features(2400, width, 1, shift=0.1)
            theirs = [evaluator.Evaluator.compute_statistics(None, side) for side in (real, made)]
            ours = [statistics_of(side, 500) for side in (real, made)]
            distance = frechet_distance(
                ours[1].mean, ours[1].covariance, ours[0].mean, ours[0].covariance
            )
            yield deviation(name, (distance, theirs[1].frechet_distance(theirs[0])))

        made, weights = features(12_000, 64, 2), features(64, 100, 3)
        logits = made @ weights / 4

        def run(fetched, feed_dict: dict) -> np.ndarray:
            exponents = np.exp(feed_dict['input'] @ weights / 4)
            return exponents / exponents.sum(axis=1, keepdims=True)

        session = SimpleNamespace(run=run)
        fake = SimpleNamespace(
            softmax_batch_size=512, sess=session, softmax='softmax', softmax_input='input'
        )
        score = evaluator.Evaluator.compute_inception_score(fake, made)
        yield deviation('IS, splits of 5000', (inception_score(logits), score))

        evaluator.DistanceBlock = _Distances
        np.bool = np.bool_  # numpy 1's name
        real, made = features(1500, 64, 4), features(1200, 64, 5, shift=0.1)
        theirs = evaluator.Evaluator.compute_prec_recall(
            SimpleNamespace(manifold_estimator=evaluator.ManifoldEstimator(None)), real, made
        )
        ours = precision_recall(torch.from_numpy(real), torch.from_numpy(made))
        yield deviation('precision, recall', (ours[0], theirs[0]), (ours[1], theirs[1]))


class _Distances:
    """In place of a TensorFlow graph: its squared distances, every step in float16."""

    def __init__(self, session) -> None:
        pass

    def pairwise_distances(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = u.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)
        norms = [(side.astype(np.float16) ** 2).astype(np.float32).sum(1) for side in (u, v)]
        norm_u, norm_v = (norm.astype(np.float16) for norm in norms)
        product = (u @ v.T).astype(np.float16)
        return np.maximum(norm_u[:, None] - 2 * product + norm_v, 0).astype(np.float32)

    def less_thans(self, batch_1, radii_1, batch_2, radii_2) -> tuple[np.ndarray, np.ndarray]:
        distances = self.pairwise_distances(batch_1, batch_2)[..., None]
        inside = distances <= radii_2, distances <= radii_1[:, None]
        return inside[0].any(axis=1), inside[1].any(axis=0)


def check_stylegan_v(folder: Path) -> Iterator[Deviation]:
    """FVD of given features, and the offsets of its clips; its networks are not built."""
    stubs = dict(
        omegaconf=stub('omegaconf', DictConfig=dict, OmegaConf=None),
        src__training__layers=stub('src.training.layers', sample_frames=None),
        requests=stub('requests'),
    )
    with importing_from(folder, **stubs) as load, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fvd, utils = load('src.metrics.frechet_video_distance'), load('src.metrics.metric_utils')
        for count in (64, 2048):
            real, made = features(count, 400, 6), features(count, 400, 7, shift=0.1)
            theirs = _their_fvd(fvd, utils, real, made)
            ours = [statistics_of(side) for side in (real, made)]
            distance = frechet_distance(
                ours[1].mean, ours[1].biased_covariance, ours[0].mean, ours[0].biased_covariance
            )
            yield deviation(f'FVD, {count} clips', (distance, theirs))
        dataset = load('src.training.dataset').VideoFramesFolderDataset
        spans = [(_our_offsets(length), _their_offsets(dataset, length)) for length in CLIP_LENGTHS]
        lengths = ', '.join(map(str, CLIP_LENGTHS))
        yield deviation(f'offsets of clips, videos of {lengths} frames', *spans)


def _their_fvd(fvd, utils, real: np.ndarray, made: np.ndarray) -> float:
    """The whole of its function, with features in the place of data and network."""

    def statistics(values: np.ndarray):
        stats = utils.FeatureStats(capture_mean_cov=True)
        stats.append(values)
        return stats

    given = SimpleNamespace(
        compute_feature_stats_for_dataset=lambda **options: statistics(real),
        compute_feature_stats_for_generator=lambda **options: statistics(made),
    )
    options = SimpleNamespace(
        dataset_kwargs=SimpleNamespace(resolution=256), generator_as_dataset=False, rank=0
    )
    fvd.metric_utils = given
    return fvd.compute_fvd(options, len(real), len(made), 16, 3)


class _FramesAsked(Exception):
    pass


def _their_offsets(dataset: type, length: int, draws: int = 2000) -> list[float]:
    """First and last offset that it draws for a video of this length."""

    def asked(index: int, frames_idx: np.ndarray):
        raise _FramesAsked(int(frames_idx[0]))

    one = SimpleNamespace(
        load_n_consecutive=16, subsample_factor=3, load_n_consecutive_random_offset=True,
        _video_idx2frames=[range(length)], _raw_idx=[0], _load_raw_frames=asked,
    )  # fmt: skip
    found = set()
    for _ in range(draws):
        try:
            dataset.__getitem__(one, 0)
        except _FramesAsked as error:
            found.add(error.args[0])
    return [min(found), max(found), len(found)]


def _our_offsets(length: int, draws: int = 2000) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, 'video')
        video.mkdir()
        for frame in range(length):
            (video / f'{frame:03}.png').touch()
        folders = (VideoFolder(folder, ClipProtocol(seed=seed)) for seed in range(draws))
        found = {each.offsets[0] for each in folders}
    return [min(found), max(found), len(found)]

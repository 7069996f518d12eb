"""Moments, Fréchet distance and inception score against closed forms and direct numpy."""

import numpy as np
import pytest
import torch
from scipy import linalg

from mmsparsedit.evaluation.statistics import (
    FeatureStatistics,
    InceptionScore,
    frechet_distance,
    inception_score,
)


def random_covariance(dims, rng):
    root = rng.standard_normal((dims, dims)) / dims**0.5
    return root @ root.T + 0.1 * np.eye(dims)


@pytest.mark.parametrize('dims', [3, pytest.param(2048, marks=pytest.mark.slow(12))])
def test_frechet_equals_closed_form_without_common_axes(dims):
    # S2 = A S1 A with A symmetric positive: tr (S1 S2)^(1/2) = tr(A S1), though S1 S2 != S2 S1
    rng = np.random.default_rng(dims)
    sigma1, a = random_covariance(dims, rng), random_covariance(dims, rng)
    mu1, mu2 = rng.standard_normal((2, dims))
    expected = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1 + a @ sigma1 @ a - 2 * a @ sigma1)
    found = frechet_distance(mu1, sigma1, mu2, a @ sigma1 @ a)
    assert abs(found - expected) < 1e-6


def test_frechet_equals_closed_form_with_common_axes():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    a, b = rng.uniform(0.1, 3, (2, 64))
    found = frechet_distance(np.zeros(64), axes * a @ axes.T, np.ones(64), axes * b @ axes.T)
    assert abs(found - (64 + np.sum((a**0.5 - b**0.5) ** 2))) < 1e-9


def test_frechet_of_equal_and_of_swapped_sides():
    rng = np.random.default_rng(1)
    sigma1, sigma2 = random_covariance(20, rng), random_covariance(20, rng)
    mu1, mu2 = rng.standard_normal((2, 20))
    assert abs(frechet_distance(mu1, sigma1, mu1, sigma1)) < 1e-9
    there, back = (
        frechet_distance(mu1, sigma1, mu2, sigma2),
        frechet_distance(mu2, sigma2, mu1, sigma1),
    )
    assert abs(there - back) < 1e-9


def test_frechet_follows_adms_rule_on_random_features():
    """Derived again from ADM's rule: np.cov, root of the plain product, offset if not finite."""
    rng = np.random.default_rng(2)
    x = np.maximum(rng.standard_normal((300, 40)), 0)
    y = np.maximum(1.2 * rng.standard_normal((200, 40)) + 0.1, 0)
    sx, sy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(sx.dot(sy))
    assert np.isfinite(root).all()
    gap = x.mean(axis=0) - y.mean(axis=0)
    expected = gap.dot(gap) + np.trace(sx) + np.trace(sy) - 2 * np.trace(root.real)
    ours = [FeatureStatistics(), FeatureStatistics()]
    ours[0].update(x.astype(np.float64))
    ours[1].update(y.astype(np.float64))
    found = frechet_distance(ours[0].mean, ours[0].covariance, ours[1].mean, ours[1].covariance)
    assert abs(found - expected) < 1e-6


def test_frechet_needs_no_matrix_root_of_regular_covariances(monkeypatch):
    rng = np.random.default_rng(4)
    scale = np.exp(rng.standard_normal(60))
    sx, sy = (np.cov(rng.standard_normal((500, 60)) * scale, rowvar=False) for _ in range(2))
    trace = np.trace(linalg.sqrtm(sx @ sy).real)
    monkeypatch.setattr(linalg, 'sqrtm', None)
    found = frechet_distance(np.zeros(60), sx, np.zeros(60), sy)
    assert found == pytest.approx(np.trace(sx) + np.trace(sy) - 2 * trace, rel=1e-12)


def test_frechet_offset_only_if_the_root_is_not_finite(monkeypatch):
    calls = []

    def root(matrix):
        calls.append(matrix)
        return np.full((2, 2), np.nan) if len(calls) == 1 else matrix * 0

    monkeypatch.setattr(linalg, 'sqrtm', root)
    sigma = np.diag([1.0, 0.0])
    frechet_distance(np.zeros(2), sigma, np.zeros(2), sigma)
    assert np.array_equal(calls[0], sigma)
    np.testing.assert_allclose(calls[1], (sigma + 1e-6 * np.eye(2)) @ (sigma + 1e-6 * np.eye(2)))
    calls.clear()
    monkeypatch.setattr(linalg, 'sqrtm', lambda matrix: calls.append(matrix) or matrix)
    frechet_distance(np.zeros(2), sigma, np.zeros(2), sigma)
    assert len(calls) == 1


def test_frechet_of_fewer_samples_than_dimensions_equals_the_symmetric_form():
    rng = np.random.default_rng(3)
    sx, sy = (np.cov(rng.standard_normal((10, 50)), rowvar=False) for _ in range(2))
    value, axes = np.linalg.eigh(sx)
    half = axes * np.sqrt(value.clip(0)) @ axes.T
    trace = np.sqrt(np.linalg.eigvalsh(half @ sy @ half).clip(0)).sum()
    expected = np.trace(sx) + np.trace(sy) - 2 * trace
    assert frechet_distance(np.zeros(50), sx, np.zeros(50), sy) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'mu2': np.zeros(3)}, r'got mu2 of shape \(3,\), expected \(2,\)'),
        ({'sigma1': np.zeros((2, 3))}, r'got sigma1 of shape \(2, 3\)'),
        ({'mu1': np.array([0, np.nan])}, 'NaN or infinity in mu1'),
        ({'sigma1': -np.eye(2)}, 'imaginary part of 1'),
    ],
)
def test_frechet_refuses(change, text):
    sides = {'mu1': np.zeros(2), 'sigma1': np.eye(2), 'mu2': np.zeros(2), 'sigma2': np.eye(2)}
    with pytest.raises(ValueError, match=text):
        frechet_distance(**{**sides, **change})


@pytest.mark.parametrize('batch_size', [1, 7, 64, 1000])
def test_streaming_moments_equal_numpy(batch_size):
    # a mean far from zero is what breaks the sums of squares
    x = 3 * np.random.default_rng(0).standard_normal((1000, 33)) + 1e4
    statistics = FeatureStatistics()
    for start in range(0, len(x), batch_size):
        statistics.update(torch.from_numpy(x[start : start + batch_size]))
    assert statistics.count == 1000
    np.testing.assert_allclose(statistics.mean, x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(statistics.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-9)
    assert np.array_equal(statistics.covariance, statistics.covariance.T)


def test_merged_moments_equal_numpy_and_leave_the_other_side():
    x = np.random.default_rng(1).standard_normal((50, 8))
    first, second, empty = FeatureStatistics(), FeatureStatistics(), FeatureStatistics()
    first.update(x[:13])
    second.update(x[13:])
    empty.merge(first)
    empty.merge(second)
    empty.merge(FeatureStatistics())
    np.testing.assert_allclose(empty.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(first.mean, x[:13].mean(axis=0), rtol=1e-12)


def test_float32_features_are_accumulated_in_float64():
    x = torch.full((3, 1), 1.0)
    x[0] += 2**-20
    statistics = FeatureStatistics()
    for _ in range(1000):
        statistics.update(x)
    expected = np.var(np.tile(x.double().numpy(), (1000, 1)), ddof=1)
    assert statistics.covariance[0, 0] == pytest.approx(expected, rel=1e-9)


def test_moments_refuse():
    statistics = FeatureStatistics()
    with pytest.raises(ValueError, match='got 0 samples, expected at least 1'):
        _ = statistics.mean
    with pytest.raises(ValueError, match=r'got features of shape \(2,\)'):
        statistics.update(torch.zeros(2))
    with pytest.raises(ValueError, match='NaN or infinite features in 1 of 2'):
        statistics.update(torch.tensor([[0.0], [float('nan')]]))
    statistics.update(torch.zeros(1, 3))
    with pytest.raises(ValueError, match='got 1 samples, expected at least 2'):
        _ = statistics.covariance
    with pytest.raises(ValueError, match='got features of 4 dimensions, expected 3'):
        statistics.update(torch.zeros(1, 4))


def direct_score(logits, split_size):
    """ADM's rule: consecutive splits, exp of the mean divergence from the split's marginal."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    scores = []
    for start in range(0, len(p), split_size):
        part = p[start : start + split_size]
        divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return np.mean(scores)


@pytest.mark.parametrize('split_size', [100, 64, 1000])
def test_inception_score_equals_the_direct_formula(split_size):
    logits = 3 * np.random.default_rng(0).standard_normal((300, 20))
    assert inception_score(logits, split_size) == pytest.approx(
        direct_score(logits, split_size), rel=1e-9
    )


def test_inception_score_in_any_order_and_batch():
    logits = 3 * np.random.default_rng(0).standard_normal((300, 20))
    order = np.random.default_rng(1).permutation(300)
    for size in (1, 7, 300):
        score = InceptionScore(split_size=64)
        for start in range(0, 300, size):
            part = order[start : start + size]
            score.update(logits[part], part)
        assert score.compute() == pytest.approx(direct_score(logits, 64), rel=1e-9)


def test_inception_score_splits_are_consecutive_not_shuffled():
    # ten classes in order: a split of one class scores 1, a shuffled split would score near 10
    logits = 50 * np.repeat(np.eye(10), 20, axis=0)
    assert inception_score(logits, 20) == pytest.approx(1, abs=1e-6)
    mixed = logits[np.random.default_rng(0).permutation(200)]
    assert inception_score(mixed, 200) == pytest.approx(10, rel=1e-6)
    assert InceptionScore().split_size == 5000


def test_inception_score_of_certain_predictions_is_finite():
    logits = np.array([[0.0, 2000.0], [2000.0, 0.0]])  # probabilities that round to 0
    assert inception_score(logits) == pytest.approx(2)


@pytest.mark.parametrize('count', [64, 2048])
def test_biased_covariance_is_stylegan_vs(count):
    """Sums of x and of x x^T over N, less the product of the means; float64."""
    features = np.random.default_rng(0).normal(3.0, 2.0, (count, 40)).astype(np.float32)
    x = features.astype(np.float64)
    mean = x.sum(axis=0) / count
    expected = x.T @ x / count - np.outer(mean, mean)
    statistics = FeatureStatistics()
    for part in np.array_split(features, 5):
        statistics.update(torch.from_numpy(part))
    np.testing.assert_allclose(statistics.biased_covariance, expected, rtol=0, atol=1e-10)
    ratio = np.trace(statistics.biased_covariance) / np.trace(statistics.covariance)
    assert ratio == pytest.approx(1 - 1 / count, rel=1e-12)

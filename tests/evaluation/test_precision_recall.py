"""Precision and recall against direct formulas; ADM's float16 rule derived again in numpy."""

import sys

import numpy as np
import pytest
import torch

from mmsparsedit.evaluation.precision_recall import (
    ManifoldEstimator,
    _float_distances,
    pairwise_distances,
    precision_recall,
)


def direct(reference, samples, k=3):
    """Kynkäänniemi et al. 2019 in float64, no blocks, no rounding."""

    def distances(u, v):
        return ((u[:, None] - v[None]) ** 2).sum(axis=-1)

    def radii(x):
        return np.sort(distances(x, x), axis=1)[:, k]

    cross = distances(reference, samples)
    precision = (cross <= radii(reference)[:, None]).any(axis=0).mean()
    recall = (cross <= radii(samples)).any(axis=1).mean()
    return precision, recall


def half_rule(reference, samples, k=3, block=10_000):
    """ADM's rule by numpy float16: round after every step, float32 for a block that overflows."""

    def one(u, v):
        half_u, half_v = u.astype(np.float16), v.astype(np.float16)
        with np.errstate(over='ignore', invalid='ignore'):
            norm_u, norm_v = (
                np.square(x).astype(np.float32).sum(axis=1).astype(np.float16)
                for x in (half_u, half_v)
            )
            product = (half_u.astype(np.float32) @ half_v.astype(np.float32).T).astype(np.float16)
            found = norm_u[:, None] - np.float16(2) * product
            found = np.maximum(found + norm_v, np.float16(0))
        if np.isfinite(found).all():
            return found.astype(np.float32)
        product = u @ v.T
        return np.maximum((u**2).sum(1)[:, None] - 2 * product + (v**2).sum(1), 0)

    def distances(u, v):
        rows = [
            np.concatenate(
                [one(u[i : i + block], v[j : j + block]) for j in range(0, len(v), block)], axis=1
            )
            for i in range(0, len(u), block)
        ]
        return np.concatenate(rows)

    def radii(x):
        return np.sort(distances(x, x), axis=1)[:, k]

    cross = distances(reference, samples)
    precision = (cross <= radii(reference)[:, None]).any(axis=0).mean()
    return precision, (cross <= radii(samples)).any(axis=1).mean()


def small_integers(count, seed, high=6, dims=8):
    """Features whose squared distances float16 holds exactly, with many ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (count, dims)).astype(np.float32)


@pytest.mark.parametrize('block', [37, 64, 10_000])
@pytest.mark.parametrize('k', [1, 3])
def test_equals_the_direct_formula(block, k):
    reference, samples = small_integers(90, 0), small_integers(130, 1, high=7)
    estimator = ManifoldEstimator(k, block_size=block)
    found = estimator.evaluate(torch.from_numpy(reference), torch.from_numpy(samples))
    expected = direct(reference, samples, k)
    assert 0.2 < expected[0] < 1 and 0.2 < expected[1] < 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_distance_equal_to_the_radius_is_inside():
    # three neighbours at distance 1 of the origin, a sample at distance 1 as well
    reference = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [0, 1]])
    samples = torch.tensor([[0.0, -1], [50, 50], [50, 51], [51, 50], [51, 51]])
    assert precision_recall(reference, samples)[0] == pytest.approx(0.2)


@pytest.mark.parametrize('scale', [1, 100, 400])
@pytest.mark.parametrize('block', [50, 10_000])
def test_follows_adms_half_precision_rule(scale, block):
    rng = np.random.default_rng(0)
    reference = np.maximum(rng.standard_normal((150, 64)), 0).astype(np.float32) * scale / 4
    samples = np.maximum(rng.standard_normal((190, 64)), 0).astype(np.float32) * scale / 4
    samples[:30] *= 1.3
    estimator = ManifoldEstimator(block_size=block)
    found = estimator.evaluate(torch.from_numpy(reference), torch.from_numpy(samples))
    np.testing.assert_allclose(found, half_rule(reference, samples, block=block), rtol=0, atol=1e-3)


def test_block_falls_back_to_float32_only_where_float16_overflows():
    u = torch.tensor([[1.0, 1 / 3], [2.0, 0.1]])
    fine = pairwise_distances(u, u)
    assert torch.equal(fine, fine.half().float())  # float16 values
    big = torch.tensor([[300.0, 1 / 3], [2.0, 0.1]])  # |u|^2 = 90 000 exceeds 65 504
    found = pairwise_distances(big, u)
    expected = ((big.double()[:, None] - u.double()) ** 2).sum(-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(found, found.half().float())


def test_half_precision_rule_shows_where_it_should():
    # 2048 + 1 is not a float16: the two samples are at distance 1, float16 says 0
    u = torch.tensor([[32.0, 32.0], [32.0, 33.0]])
    assert pairwise_distances(u, u)[0, 1].item() != 1
    out = torch.empty(2, 2)
    _float_distances(u, u, out)
    assert out[0, 1].item() == 1


def test_strips_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(1)
    u, v = (torch.from_numpy(rng.integers(0, 9, (70, 6))).float() for _ in range(2))
    before = pairwise_distances(u, v)
    monkeypatch.setattr(sys.modules[pairwise_distances.__module__], 'STRIP_ROWS', 11)
    assert torch.equal(pairwise_distances(u, v), before)


def test_refuses():
    three = torch.zeros(3, 2)
    with pytest.raises(ValueError, match='got 3 samples, expected more than k = 3'):
        ManifoldEstimator().radii(three)
    with pytest.raises(ValueError, match='got samples of 3 dimensions, expected 2'):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 3))
    with pytest.raises(ValueError, match='NaN or infinity in samples'):
        precision_recall(torch.zeros(9, 2), torch.full((9, 2), float('nan')))

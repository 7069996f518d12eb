"""Eq. 5, stages, and the draw of a stage in training."""

import numpy as np
import pytest
from scipy import stats

from mmsparsedit.prune import ElasticPruneScheduler, TimestepPruneScheduler


def grids(*args, **kwargs):
    return [stage.grid for stage in TimestepPruneScheduler(*args, **kwargs).stages]


@pytest.mark.parametrize(
    'rates,side,expected',
    [
        ((0.61, 0.86), 16, [10, 9, 8, 6]),
        ((0.44, 0.61), 16, [12, 11, 11, 10]),
        ((0.61, 0.86), 32, [20, 18, 15, 12]),
        ((0.90, 0.96), 32, [10, 9, 8, 6]),
        ((0.75, 0.9375), 64, [32, 28, 23, 16]),
    ],
)
def test_grids_of_the_paper(rates, side, expected):
    assert grids(*rates, (side, side)) == [(s, s) for s in expected]


def test_video_keeps_its_frames_and_counts_them():
    prune = TimestepPruneScheduler(0.80, 0.93, (16, 16, 16), num_frames=8)
    assert [s.grid for s in prune.stages] == [(8, s, s) for s in (10, 9, 8, 6)]
    assert prune.stages[0].rate == pytest.approx(1 - 800 / 4096)


def test_rate_is_continuous_and_reaches_both_ends():
    prune = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    assert prune.rate_at(0) == prune.rate_at(249.9) == 0.61
    assert prune.rate_at(250) == pytest.approx(0.61)
    assert prune.rate_at(1000) == pytest.approx(0.86)
    assert prune.rate_at(625) == pytest.approx((0.61 + 0.86) / 2)


def test_a_stage_holds_its_start_and_not_its_end():
    prune = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    assert [(s.t_start, s.t_end) for s in prune.stages] == [
        (0, 250),
        (250, 500),
        (500, 750),
        (750, 1000),
    ]
    assert prune.grid_at(249.99) == (10, 10) and prune.grid_at(250) == (9, 9)
    assert prune.grid_at(999) == prune.grid_at(1000) == (6, 6)


def test_other_pieces_rules_and_explicit_grids():
    assert grids(0.61, 0.86, (16, 16), num_stages=2) == [(10, 10), (6, 6)]
    assert grids(0.5, 0.5, (16, 16), num_stages=1) == [(11, 11)]
    start = TimestepPruneScheduler(0.61, 0.86, (16, 16), piece_rule='start')
    assert start.stages[1].grid == (10, 10)
    floor = TimestepPruneScheduler(0.61, 0.86, (16, 16), rounding='floor')
    assert [s.grid[0] for s in floor.stages] == [9, 8, 7, 5]
    assert grids(0.75, 0.75, (8, 16), num_stages=1) == [(4, 8)]
    given = TimestepPruneScheduler(grids=[(8, 8), (4, 6)], boundaries=[300], token_grid=(16, 16))
    assert given.grid_at(299) == (8, 8) and given.grid_at(300) == (4, 6)
    assert given.r_min == 0.75 and given.r_max == pytest.approx(1 - 24 / 256)


@pytest.mark.parametrize('ranks', [1, 2, 3, 8])
def test_t_is_uniform_over_all_ranks(ranks):
    """Chi-square of t over 20 bins; the marginal of every single rank as well."""
    prune = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    generator = np.random.default_rng(0)
    draws = np.empty((6000, ranks))
    for iteration in range(6000):
        for rank in range(ranks):
            stage = prune.draw_stage(7, iteration, rank)
            draws[iteration, rank] = generator.integers(stage.t_start, stage.t_end)
    for sample in (draws.ravel(), *draws.T):
        counts = np.histogram(sample, bins=20, range=(0, 1000))[0]
        assert stats.chisquare(counts).pvalue > 1e-3
        assert sample.mean() == pytest.approx(499.5, abs=5 * 288.7 / len(sample) ** 0.5)


def test_unequal_stages_are_drawn_by_their_length():
    prune = TimestepPruneScheduler(
        grids=[(8, 8), (6, 6), (4, 4)], boundaries=[100, 700], token_grid=(16, 16)
    )
    counts = np.bincount([prune.draw_stage(0, i).index for i in range(8000)], minlength=3)
    assert stats.chisquare(counts, 8000 * np.array([0.1, 0.6, 0.3])).pvalue > 1e-3


def test_the_draw_is_a_function_of_seed_iteration_rank():
    first = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    drawn = [first.draw_stage(3, i, r).index for i in range(200) for r in range(4)]
    again = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    restarted = [again.draw_stage(3, i, r).index for i in range(100, 200) for r in range(4)]
    assert drawn[400:] == restarted
    assert drawn != [first.draw_stage(4, i, r).index for i in range(200) for r in range(4)]


def test_four_ranks_cover_four_stages_and_shared_draws_agree():
    prune = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    shared = TimestepPruneScheduler(0.61, 0.86, (16, 16), per_rank=False)
    for i in range(50):
        assert {prune.draw_stage(0, i, r).index for r in range(4)} == {0, 1, 2, 3}
        assert len({shared.draw_stage(0, i, r).index for r in range(4)}) == 1


@pytest.mark.parametrize('schedule', [TimestepPruneScheduler, ElasticPruneScheduler])
def test_shared_draws_cover_t_in_any_few_iterations(schedule):
    """Ten successive iterations hold each of four equal stages twice to four times.

    Independent draws miss the first stage in one window of eighteen.
    """
    shared = schedule(r_min=0.44, r_max=0.75, token_grid=(8, 8), per_rank=False)
    for seed in range(3):
        drawn = np.array([shared.draw_stage(seed, i).index for i in range(400)])
        windows = np.lib.stride_tricks.sliding_window_view(drawn, 10)
        counts = (windows[..., None] == np.arange(4)).sum(1)
        assert counts.min() == 2 and counts.max() <= 4
        share = np.bincount(drawn, minlength=4) / len(drawn)
        assert share == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize(
    'arguments,message',
    [
        (dict(r_min=-0.1, r_max=0.5), r'r_min must be in \[0, 1\)'),
        (dict(r_min=0.5, r_max=1.0), r'r_max must be in \[0, 1\)'),
        (dict(r_min=0.8, r_max=0.5), 'Swap them'),
        (dict(r_min=0.5), 'go together'),
        (dict(), 'either r_min and r_max or grids'),
        (dict(r_min=0.5, r_max=0.6, num_stages=1), 'one stage has one rate'),
        (dict(grids=[(17, 16)]), 'exceeds the dense grid'),
        (dict(grids=[(8, 8), (4, 4)], boundaries=[]), 'need 1 boundaries'),
        (dict(grids=[(8, 8), (4, 4)], boundaries=[1000]), 'rise strictly'),
        (dict(r_min=0.5, r_max=0.6, piece_rule='mean'), 'piece_rule must be one of'),
        (dict(r_min=0.5, r_max=0.6, num_frames=4), 'needs a video grid'),
        (dict(r_min=0.5, r_max=0.6, token_grid=(16,)), 'token_grid'),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimestepPruneScheduler(**{'token_grid': (16, 16), **arguments})


def test_time_outside_training_is_refused():
    prune = TimestepPruneScheduler(0.61, 0.86, (16, 16))
    for t in (-1, 1001):
        with pytest.raises(ValueError, match='outside'):
            prune.grid_at(t)

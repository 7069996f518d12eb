"""The ladder of schedules, and the draw of a grid from it in training."""

from collections import Counter

import pytest

from mmsparsedit.prune import ElasticPruneScheduler, TimestepPruneScheduler

DIGITS = dict(r_min=0.44, r_max=0.75, token_grid=(8, 8))


def test_the_ladder_goes_from_the_fewest_tokens_to_all_and_holds_the_schedule_itself():
    elastic = ElasticPruneScheduler(**DIGITS, r_range=(0.0, 0.94))
    assert elastic.ladder[0] == ((2, 2),) * 4 and elastic.ladder[-1] == ((8, 8),) * 4
    own = tuple(stage.grid for stage in elastic.stages)
    assert own in elastic.ladder and own == ((6, 6), (5, 5), (5, 5), (4, 4))
    for low, high in zip(elastic.ladder[:-1], elastic.ladder[1:], strict=True):
        assert low != high and all(a <= b for a, b in zip(low, high, strict=True))
        assert list(low) == sorted(low, reverse=True)  # fewer tokens towards noise


def test_training_draws_every_grid_and_timesteps_as_ever():
    elastic = ElasticPruneScheduler(**DIGITS, r_range=(0.0, 0.94))
    plain = TimestepPruneScheduler(**DIGITS)
    drawn = [elastic.draw_stage(1, i, rank) for i in range(300) for rank in (0, 1)]
    same = [plain.draw_stage(1, i, rank) for i in range(300) for rank in (0, 1)]
    assert [s.index for s in drawn] == [s.index for s in same]
    assert {s.grid for s in drawn} == {(n, n) for n in range(2, 9)} == set(elastic.grids)
    assert drawn[7] == elastic.draw_stage(1, 3, 1)  # nothing but seed, iteration and rank


def test_a_share_of_iterations_leaves_the_middle_out():
    elastic = ElasticPruneScheduler(**DIGITS, skip_middle=0.25)
    drawn = Counter(elastic.draw_stage(0, i).grid == (0, 0) for i in range(2000))
    assert drawn[True] == pytest.approx(500, abs=60) and (0, 0) in elastic.grids


def test_other_sizes_and_video_keep_the_range():
    wide = ElasticPruneScheduler(**DIGITS).for_grid((8, 16))
    assert isinstance(wide, ElasticPruneScheduler) and wide.ladder[-1] == ((8, 16),) * 4
    video = ElasticPruneScheduler(r_min=0.8, r_max=0.93, token_grid=(16, 16, 16), num_frames=8)
    assert {grid[0] for grid in video.grids} == {8} and video.ladder[-1] == ((8, 16, 16),) * 4


def test_refusals():
    with pytest.raises(ValueError, match=r'r_range \(0.9, 0.2\): expected \(low, high\)'):
        ElasticPruneScheduler(**DIGITS, r_range=(0.9, 0.2))
    with pytest.raises(ValueError, match='skip_middle must be in'):
        ElasticPruneScheduler(**DIGITS, skip_middle=1)

"""One training for every budget: the grid of an iteration is drawn from a range of schedules."""

import math
from collections.abc import Sequence

from mmsparsedit.registry import TASK_UTILS

from .schedule import Stage, TimestepPruneScheduler

Grids = tuple[tuple[int, ...], ...]  # of the stages, from clean to noisy


@TASK_UTILS.register_module()
class ElasticPruneScheduler(TimestepPruneScheduler):
    """Training at a whole range of pruning rates, so that one checkpoint serves every budget.

    The stages, r_min and r_max are those of ``TimestepPruneScheduler`` and hold wherever no budget
    is chosen. They also give the shape of the ladder: schedules that keep k times the tokens of
    these stages, for every k that changes a grid, each stage held inside ``r_range``. An iteration
    draws its stage as ever, and then the schedule that gives its grid, each of the ladder as often
    as any other. The network does not change: its grid is an argument. No published source.

    Args:
        r_range: lowest and highest rate that training draws, 0 <= low < high < 1; 0 keeps all
            tokens.
        skip_middle: share of iterations at a grid of no tokens, which leaves the middle segment
            out; the generator drops all conditions of these. Trains the cheapest unconditional half
            of guidance (``cfg_prune=dict(grids=[(0, 0)])``).
        **schedule: of ``TimestepPruneScheduler``.
    """

    def __init__(
        self, *, r_range: Sequence[float] = (0.0, 0.95), skip_middle: float = 0.0, **schedule
    ) -> None:
        super().__init__(**schedule)
        low, high = r_range
        if not 0 <= low < high < 1:
            raise ValueError(
                f'r_range {tuple(r_range)}: expected (low, high) with 0 <= low < high < 1, the '
                'shares of tokens dropped that training goes through.'
            )
        if not 0 <= skip_middle < 1:
            raise ValueError(
                f'skip_middle must be in [0, 1), got {skip_middle}: it is a share of iterations.'
            )
        self.r_range = (float(low), float(high))
        self.skip_middle = float(skip_middle)
        self._options |= dict(r_range=self.r_range, skip_middle=self.skip_middle)
        self.ladder = self._ladder()

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """Every grid that training or sampling may ask for, once each."""
        grids = [*super().grids, *(grid for grids in self.ladder for grid in grids)]
        if self.skip_middle:
            grids.append((0,) * len(self.token_grid))
        return list(dict.fromkeys(grids))

    def draw_stage(self, seed: int, iteration: int, rank: int = 0, time_quantile=lambda u: u):
        """The stage of a training iteration at a grid of the range.

        Its range of timesteps is that of a stage of this schedule, drawn as ever. A function of
        (seed, iteration, rank) only.
        """
        of_stage, of_member, of_skip = self._uniform(seed, iteration, rank, 3)
        stage = self.stage_at(time_quantile(of_stage) * self.num_timesteps)
        grid = self.ladder[int(of_member * len(self.ladder))][stage.index]
        if of_skip < self.skip_middle:
            grid = (0,) * len(self.token_grid)
        return Stage(stage.index, stage.t_start, stage.t_end, grid, self._rate_of(grid))

    def fixed(self, grids: Sequence[Sequence[int]]) -> dict:
        """The config of a schedule with other grids in the same stages, for sampling."""
        return dict(
            type=TimestepPruneScheduler.__name__,
            grids=[tuple(grid) for grid in grids],
            boundaries=[stage.t_start for stage in self.stages[1:]],
            token_grid=self.token_grid,
            num_timesteps=self.num_timesteps,
        )

    def _ladder(self) -> list[Grids]:
        """Grids of the stages, from fewest tokens to most; two neighbours differ."""
        kept = [1 - stage.rate for stage in self.stages]
        lowest, highest = 1 - self.r_range[1], 1 - self.r_range[0]
        factors = {lowest / max(kept), highest / min(kept)}
        for stage, share in zip(self.stages, kept, strict=True):
            for side in self.token_grid[-2:]:
                # where a side of this stage becomes n tokens, and where it passes to the next
                steps = (n / 2 / side for n in range(1, 2 * side + 1))
                frames = self._frames_kept(stage)
                factors |= {min(highest, step**2 * frames) / share for step in steps}
        ladder: list[Grids] = []
        for factor in sorted(factors):
            rungs = zip(self.stages, kept, strict=True)
            grids = tuple(
                self._grid_like(stage, min(max(factor * share, lowest), highest))
                for stage, share in rungs
            )
            if not ladder or grids != ladder[-1]:
                ladder.append(grids)
        return ladder

    def _frames_kept(self, stage: Stage) -> float:
        return 1.0 if len(stage.grid) == 2 else stage.grid[0] / self.token_grid[0]

    def _grid_like(self, stage: Stage, keep: float) -> tuple[int, ...]:
        """The grid of a share of tokens; frames stay those of the stage."""
        shrink = math.sqrt(keep / self._frames_kept(stage))
        sides = (min(side, max(1, round(side * shrink))) for side in self.token_grid[-2:])
        return (*stage.grid[:-2], *sides)

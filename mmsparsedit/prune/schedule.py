"""Timestep-wise pruning rate (SparseDiT, Eq. 5): t -> stage -> token grid.

t is diffusion time, 0 clean ... T noise; r = 1 - M/N with M sparse and N dense tokens.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmsparsedit.nn.resample import check_grid
from mmsparsedit.registry import TASK_UTILS

PIECE_RULES = ('end', 'middle', 'start')
# steps of Kronecker sequences, independent over the rationals: parts of the golden ratio and roots
IRRATIONALS = ((5**0.5 - 1) / 2, 2**0.5 - 1, 3**0.5 - 1)
ROUNDINGS = {'nearest': round, 'floor': math.floor, 'ceil': math.ceil}


@dataclass(frozen=True)
class Stage:
    """A range of timesteps, ``t_start <= t < t_end``, that shares one token grid."""

    index: int
    t_start: int
    t_end: int
    grid: tuple[int, ...]
    rate: float  # r = 1 - M/N of the grid as rounded

    @property
    def num_timesteps(self) -> int:
        return self.t_end - self.t_start


@TASK_UTILS.register_module()
class TimestepPruneScheduler:
    """Piecewise constant pruning rate over timesteps.

    The continuous rate (``rate_at``) is r_min up to T/4 and rises linearly to r_max at T. The
    printed Eq. 5 lost its t_i; this is the form that is continuous at T/4 and reaches r_max at T.

    For training it is cut into stages, so that a batch has one grid. Reading of the paper (its
    Figure 2 shows four): the first stage is [0, T/4) at r_min, the others are equal pieces of
    [T/4, T), each at the rate of its noisy end; a side of the grid is
    ``round(side * sqrt(1 - r))``. With N = 256 and r in [0.61, 0.86] that gives 10x10, 9x9, 8x8,
    6x6. The paper's costs of Latte and PixArt fit it; those of its Table 1 count one fixed grid.

    Args:
        r_min: rate at the clean end (most tokens), in [0, 1).
        r_max: rate at the noisy end (fewest tokens), in [r_min, 1).
        token_grid: dense grid (H, W), or (F, H, W) for video.
        num_timesteps: T.
        num_stages: number of pieces. 1 is a constant rate and needs r_min = r_max.
        piece_rule: where a piece of [T/4, T) takes its rate: at its noisy ``'end'`` (paper),
            its ``'middle'`` or its ``'start'``.
        rounding: of a side: ``'nearest'``, ``'floor'`` or ``'ceil'``.
        num_frames: frames of the sparse grid, for video; the rate counts frames and positions
            together (Latte: 8 of 16). By default all frames stay.
        grids: explicit grids of the stages from clean to noisy, instead of a rate. A grid of no
            tokens, (0, 0), leaves the middle segment out.
        boundaries: with ``grids``, the timesteps between them (one fewer than grids); by default
            T/4 and equal pieces after it.
        per_rank: each process of a distributed training draws its own stage (the paper's way,
            which covers all stages in one iteration, so that it takes as long as its dearest
            stage); False gives every process the same, and covers all t evenly in any few
            successive iterations instead.
    """

    def __init__(
        self,
        r_min: float | None = None,
        r_max: float | None = None,
        token_grid: Sequence[int] = (16, 16),
        num_timesteps: int = 1000,
        num_stages: int = 4,
        piece_rule: str = 'end',
        rounding: str = 'nearest',
        num_frames: int | None = None,
        grids: Sequence[Sequence[int]] | None = None,
        boundaries: Sequence[int] | None = None,
        per_rank: bool = True,
    ) -> None:
        self.token_grid = tuple(token_grid)
        if len(self.token_grid) not in (2, 3) or any(side < 1 for side in self.token_grid):
            raise ValueError(
                f'token_grid {self.token_grid}: expected (H, W) or (F, H, W) of at least 1 each.'
            )
        if num_timesteps < 1:
            raise ValueError(f'num_timesteps must be at least 1, got {num_timesteps}.')
        self.num_timesteps = int(num_timesteps)
        self.per_rank = per_rank
        if (grids is None) == (r_min is None and r_max is None):
            raise ValueError(
                f'give either r_min and r_max or grids, got r_min={r_min}, r_max={r_max}, '
                f'grids={grids}.'
            )
        grids_given = grids is not None
        if grids is not None:
            grids = [check_grid(grid, self.token_grid) for grid in grids]
            rates = [self._rate_of(grid) for grid in grids]
            self.r_min, self.r_max = min(rates), max(rates)
            num_stages = len(grids)
        else:
            self.r_min, self.r_max = _checked_rates(r_min, r_max)
            if boundaries is not None:
                raise ValueError(
                    'boundaries go with explicit grids; with r_min and r_max the stages follow '
                    'Eq. 5. Drop boundaries or give grids.'
                )
        if int(num_stages) != num_stages or num_stages < 1:
            raise ValueError(f'num_stages must be a whole number of at least 1, got {num_stages}.')
        if num_stages == 1 and grids is None and self.r_min != self.r_max:
            raise ValueError(
                f'one stage has one rate, got r_min={self.r_min} and r_max={self.r_max}: make '
                'them equal, or raise num_stages.'
            )
        if piece_rule not in PIECE_RULES:
            raise ValueError(f'piece_rule must be one of {PIECE_RULES}, got {piece_rule!r}.')
        if rounding not in ROUNDINGS:
            raise ValueError(f'rounding must be one of {tuple(ROUNDINGS)}, got {rounding!r}.')

        edges = self._edges(num_stages, boundaries)
        if grids is None:
            grids = []
            for start, end in zip(edges[:-1], edges[1:], strict=True):
                t = {'end': end, 'middle': (start + end) / 2, 'start': start}[piece_rule]
                rate = self.r_min if start == 0 else self.rate_at(t)
                grids.append(self._grid_of(rate, num_frames, ROUNDINGS[rounding]))
        self.stages = [
            Stage(i, edges[i], edges[i + 1], grid, self._rate_of(grid))
            for i, grid in enumerate(grids)
        ]
        self._starts = edges[:-1]
        self._options: dict = dict(num_timesteps=num_timesteps, num_stages=num_stages)
        if grids_given:
            self._options |= dict(grids=grids, boundaries=edges[1:-1])
        else:
            self._options |= dict(r_min=r_min, r_max=r_max, num_frames=num_frames)
            self._options |= dict(piece_rule=piece_rule, rounding=rounding)
        self._other_grids: dict[tuple[int, ...], TimestepPruneScheduler] = {}

    def for_grid(self, token_grid: Sequence[int]) -> 'TimestepPruneScheduler':
        """This schedule for data of another size: the same stages and rates on another dense grid.

        Grids come from the rates by the same rounding; explicit ones are scaled side by side. Kept,
        so that a second call costs nothing.
        """
        token_grid = tuple(token_grid)
        if token_grid == self.token_grid:
            return self
        if token_grid not in self._other_grids:
            options = dict(self._options)
            if 'grids' in options:
                options['grids'] = [
                    [
                        side and max(1, round(side * new / own))
                        for side, new, own in zip(grid, token_grid, self.token_grid, strict=True)
                    ]
                    for grid in options['grids']
                ]
            self._other_grids[token_grid] = type(self)(
                token_grid=token_grid, per_rank=self.per_rank, **options
            )
        return self._other_grids[token_grid]

    def rate_at(self, t: float) -> float:
        """Eq. 5, continuous: the pruning rate at timestep t in [0, T]."""
        T = self.num_timesteps
        self._check_timestep(t)
        if t < T / 4:
            return self.r_min
        return ((4 * T - 4 * t) * self.r_min + (4 * t - T) * self.r_max) / (3 * T)

    def stage_at(self, t: float) -> Stage:
        """The stage that timestep t in [0, T] belongs to; T itself belongs to the last."""
        self._check_timestep(t)
        return self.stages[bisect.bisect_right(self._starts, t) - 1]

    def grid_at(self, t: float) -> tuple[int, ...]:
        """The token grid of timestep t in [0, T]."""
        return self.stage_at(t).grid

    def draw_stage(
        self,
        seed: int,
        iteration: int,
        rank: int = 0,
        time_quantile: Callable[[float], float] = lambda u: u,
    ) -> Stage:
        """The stage of a training iteration: a function of (seed, iteration, rank) only.

        A stage is drawn with the probability that training gives its timesteps (its share of T
        when t is uniform), so that with t drawn inside it the marginal distribution of t is
        training's for any number of ranks. The ranks of an iteration share one uniform number,
        shifted by a van der Corput sequence, so that any number of them covers the range evenly.
        Without ``per_rank`` that number is the seed's, shifted from iteration to iteration by the
        golden ratio.

        Args:
            time_quantile: of the process: share of T below which a share u of timesteps lies.
        """
        uniform = self._uniform(seed, iteration, rank)[0]
        return self.stage_at(time_quantile(uniform) * self.num_timesteps)

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """Every grid that training or sampling may ask for, once each."""
        return list(dict.fromkeys(stage.grid for stage in self.stages))

    def _uniform(self, seed: int, iteration: int, rank: int, count: int = 1) -> list[float]:
        """Uniform numbers of an iteration, spread over its ranks or over the iterations."""
        key = [seed, iteration] if self.per_rank else [seed, 0]
        uniform = np.random.Generator(np.random.Philox(key=key)).random(count)
        if self.per_rank:
            shifts = [_radical_inverse(rank, base) for base in (2, 3, 5)[:count]]
        else:
            shifts = [iteration * step for step in IRRATIONALS[:count]]
        return [float((u + shift) % 1.0) for u, shift in zip(uniform, shifts, strict=True)]

    def _edges(self, num_stages: int, boundaries: Sequence[int] | None) -> list[int]:
        T = self.num_timesteps
        if boundaries is None:
            first = T / 4
            pieces = max(num_stages - 1, 1)
            inner = [round(first + i * (T - first) / pieces) for i in range(num_stages - 1)]
        else:
            inner = list(boundaries)
            if len(inner) != num_stages - 1:
                raise ValueError(
                    f'{num_stages} grids need {num_stages - 1} boundaries, got {len(inner)}.'
                )
        edges = [0, *inner, T]
        if any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
            raise ValueError(
                f'stage boundaries {inner} must rise strictly inside (0, {T}): use fewer stages '
                'or other boundaries.'
            )
        return edges

    def _grid_of(self, rate: float, num_frames: int | None, rounding) -> tuple[int, ...]:
        frames: tuple[int, ...] = ()
        keep = 1 - rate
        if len(self.token_grid) == 3:
            frames = (num_frames or self.token_grid[0],)
            keep *= self.token_grid[0] / frames[0]
        elif num_frames is not None:
            raise ValueError(f'num_frames needs a video grid (F, H, W), got {self.token_grid}.')
        sides = tuple(max(1, rounding(side * math.sqrt(keep))) for side in self.token_grid[-2:])
        return check_grid(frames + sides, self.token_grid)

    def _rate_of(self, grid: Sequence[int]) -> float:
        return 1 - math.prod(grid) / math.prod(self.token_grid)

    def _check_timestep(self, t: float) -> None:
        if not 0 <= t <= self.num_timesteps:
            raise ValueError(f'timestep {t} is outside [0, {self.num_timesteps}].')


def _checked_rates(r_min: float | None, r_max: float | None) -> tuple[float, float]:
    if r_min is None or r_max is None:
        raise ValueError(f'r_min and r_max go together, got r_min={r_min}, r_max={r_max}.')
    for name, rate in (('r_min', r_min), ('r_max', r_max)):
        if not 0 <= rate < 1:
            raise ValueError(
                f'{name} must be in [0, 1), got {rate}: it is the share of tokens dropped.'
            )
    if r_min > r_max:
        raise ValueError(
            f'r_min {r_min} exceeds r_max {r_max}: r_min is the rate at the clean end, where most '
            'tokens stay. Swap them.'
        )
    return float(r_min), float(r_max)


def _radical_inverse(n: int, base: int) -> float:
    """Van der Corput's sequence in a base; in base 2: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    inverse, digit = 0.0, 1 / base
    while n:
        n, last = divmod(n, base)
        inverse += last * digit
        digit /= base
    return inverse

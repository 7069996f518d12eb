"""The middle segment of an earlier sampler step in place of this one's: interval caching.

B batch, N dense tokens, C width. What the middle adds to its tokens changes slowly along a
trajectory (DeepCache, Ma et al. 2024; Delta-DiT, Chen et al. 2024), so it is computed every k-th
call and added unchanged in between; bottom and top always run. It comes on top of sparse tokens
and is an approximation: off unless asked for.
"""

from collections.abc import Hashable, Iterable

from torch import Tensor

from mmsparsedit.nn import SparseTransformer


def run_with_residual(
    network: SparseTransformer, x: Tensor, t: Tensor, grid: tuple[int, ...] | None, condition: dict
) -> tuple[Tensor, Tensor]:
    """The network's output, and what its middle added to the dense tokens, (B, ..., N, C)."""
    tokens, c = network.embed(x, t, **condition)
    entered = network.run_bottom(tokens, c)
    left = network.run_middle(entered, c, grid=grid)
    return network.head(network.run_top(left, c), c), left - entered


def run_without_middle(
    network: SparseTransformer, x: Tensor, t: Tensor, residual: Tensor, condition: dict
) -> Tensor:
    """The network's output with ``residual`` (B, ..., N, C) in place of its middle."""
    tokens, c = network.embed(x, t, **condition)
    tokens = network.run_bottom(tokens, c) + residual
    return network.head(network.run_top(tokens, c), c)


class StepCache:
    """Which calls of one trajectory reuse the residual: all but every ``interval``-th of a stage.

    A change of stage (another key) computes anew and starts counting again. An interval of 1
    never reuses.
    """

    def __init__(self, interval: int = 1) -> None:
        if int(interval) != interval or interval < 1:
            raise ValueError(
                f'the interval of the step cache must be a whole number of at least 1 (1 is off), '
                f'got {interval}.'
            )
        self.interval = int(interval)
        self._key: Hashable = None
        self._age = self.interval

    def reuses(self, key: Hashable) -> bool:
        """Whether the next call, of stage ``key``, takes the residual of an earlier one."""
        if key != self._key or self._age >= self.interval:
            self._key, self._age = key, 0
        self._age += 1
        return self._age > 1

    def plan(self, keys: Iterable[Hashable]) -> list[bool]:
        """``reuses`` for every call of a trajectory, for counting its cost."""
        plan = StepCache(self.interval)
        return [plan.reuses(key) for key in keys]

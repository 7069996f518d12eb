"""The middle segment of an earlier sampler step in place of this one's: interval caching.

B batch, N dense tokens, C width. What the middle adds to its tokens changes slowly along a
trajectory (DeepCache, Ma et al. 2024; Delta-DiT, Chen et al. 2024), so it is computed every k-th
call and added unchanged in between; bottom and top always run. It comes on top of sparse tokens
and is an approximation: off unless asked for.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class MiddleResidual:
    """What the middle added to the dense tokens, like them (B, ..., N, C); None: not known yet."""

    value: Tensor | None = None


def run_middle(
    modules: Iterable[nn.Module], x: Tensor, kept: MiddleResidual | None, *arguments
) -> Tensor:
    """Dense tokens through the modules of the middle, or past them with a known residual.

    Args:
        modules: each called as ``module(x, *arguments)``.
        kept: None runs them; a residual without value runs them and takes its value; one with a
            value is added to ``x`` and nothing runs.
    """
    if kept is not None and kept.value is not None:
        return x + kept.value
    entered = x
    for module in modules:
        x = module(x, *arguments)
    if kept is not None:
        kept.value = x - entered
    return x


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

"""What a method of sparing calls is, and the run of one whose plan is known beforehand.

A stage is one token grid, guided or not: what was kept in one is never used in another, for its
tokens differ in number. B batch.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer

Grid = tuple[int, ...] | None
# run(x, t, grid, condition, guided): one call of a trajectory
Run = Callable[..., Tensor]


class Ready(Protocol):
    """Makes a function fit to run: in the precision asked for, compiled, captured.

    ``function`` is taken the first time that its key is met. ``static`` ones are called with
    tensors (B, ...) and a condition only, as ``(x, t, kept, condition) -> (output, kept)``.
    """

    def __call__(self, key: tuple, function: Callable, static: bool = True) -> Callable: ...


class Parts(nn.Module):
    """A network as a method runs it: ``compute`` a call whole, ``reuse`` what was kept of one."""

    linked: ClassVar[bool] = False  # has copies of modules that share their weights
    seen: Tensor | None = None  # what the last call was judged by: work that no output shows

    def example_inputs(self, batch_size: int = 1, device: str = 'cpu') -> dict:
        return self.network.example_inputs(batch_size, device)

    def compute(
        self, x: Tensor, t: Tensor, grid: Grid, condition: dict
    ) -> tuple[Tensor, Tensor | None]:
        """The output of a whole call, and what is to be kept of it, (B, ...)."""
        raise NotImplementedError

    def reuse(self, x: Tensor, t: Tensor, kept: Tensor, grid: Grid, condition: dict) -> Tensor:
        """The output of a call that has ``kept`` in place of what it spares."""
        raise NotImplementedError


class Method:
    """Which calls of a trajectory are spared, and what stands in for what they leave out."""

    decides: ClassVar[bool] = False  # by the data, on the host: which calls is not known before

    def check(self, network: SparseTransformer) -> None:
        """ValueError where the method cannot work on a network."""

    def parts(self, network: SparseTransformer) -> Parts:
        raise NotImplementedError

    def trajectory(self, parts: Parts, ready: Ready, num_calls: int) -> Run:
        """The calls of one trajectory, in their order."""
        raise NotImplementedError


class Planner:
    """Which calls reuse, asked call by call in their order; the first of a stage never does."""

    def __init__(self) -> None:
        self.index = -1  # of the call, in the trajectory
        self.stage: Hashable = None
        self.in_stage = -1  # the call's index in its stage
        self.age = 0  # calls since the last whole one

    def reuses(self, stage: Hashable) -> bool:
        self.index += 1
        self.in_stage = self.in_stage + 1 if stage == self.stage else 0
        self.stage = stage
        self.age = self.age + 1 if self.in_stage and not self.whole() else 0
        return self.age > 0

    def whole(self) -> bool:
        """Whether a call that is not the first of its stage is computed whole; ``age`` is still
        that of the call before."""
        raise NotImplementedError


class Memory:
    """What the last whole call of a stage left, as it is."""

    def keep(self, kept: Tensor, planner: Planner) -> None:
        self.kept = kept

    def recall(self, planner: Planner) -> Tensor:
        return self.kept


class PlannedMethod(Method):
    """A method that spares the same calls whatever the data: they are static functions."""

    memory: ClassVar[Callable[[], Any]] = Memory

    def planner(self, num_calls: int) -> Planner:
        raise NotImplementedError

    def plan(self, stages: Iterable[Hashable]) -> list[bool]:
        """Which calls of a trajectory through ``stages`` reuse, for counting its cost."""
        stages = list(stages)
        planner = self.planner(len(stages))
        return [planner.reuses(stage) for stage in stages]

    def trajectory(self, parts: Parts, ready: Ready, num_calls: int) -> Run:
        planner, memory = self.planner(num_calls), self.memory()

        def run(x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False) -> Tensor:
            reused = planner.reuses((grid, guided))
            stage = ready((grid, guided, reused), stage_function(parts, grid, reused))
            if reused:
                return stage(x, t, memory.recall(planner), condition)[0]
            output, kept = stage(x, t, None, condition)
            memory.keep(kept, planner)
            return output

        return run


def stage_function(parts: Parts, grid: Grid, reused: bool) -> Callable:
    """(x, t, kept, condition) -> output, and what is to be kept of a whole call."""

    def stage(x: Tensor, t: Tensor, kept: Tensor | None, condition: dict):
        if reused:
            return parts.reuse(x, t, kept, grid, condition), None
        return parts.compute(x, t, grid, condition)

    return stage


def whole_number(name: str, value: float, least: int) -> int:
    """``value`` as an int of at least ``least``, or ValueError."""
    if int(value) != value or value < least:
        raise ValueError(f'{name} must be a whole number of at least {least}, got {value}.')
    return int(value)

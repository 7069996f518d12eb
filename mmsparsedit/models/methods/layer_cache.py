"""The outputs of attention and MLP of every layer from earlier calls: FORA, TaylorSeer.

A spared call runs embedders, modulations, gates, SDTMs' poolings and merges, and the last layer; no
attention and no MLP. B batch, C width, F values that the branches of all layers make for a sample.
"""

import math

import torch
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer
from mmsparsedit.registry import MODELS

from .linked import BRANCHES, blocks_of, linked_copy
from .method import Grid, Memory, Parts, PlannedMethod, Planner, whole_number


class Tape:
    """Outputs of branches in the order of a call, as one tensor (B, F) and back."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.shapes: dict[Grid, list[torch.Size]] = {}  # without B

    def record(self, output: Tensor) -> Tensor:
        self.outputs.append(output)
        return output

    def joined(self, grid: Grid) -> Tensor:
        """What was recorded at ``grid``, (B, F); the tape is empty then."""
        self.shapes[grid] = [output.shape[1:] for output in self.outputs]
        joined = torch.cat([output.flatten(1) for output in self.outputs], dim=1)
        self.outputs = []
        return joined

    def load(self, joined: Tensor, grid: Grid) -> None:
        shapes = self.shapes[grid]
        parts = joined.split([math.prod(shape) for shape in shapes], dim=1)
        self.outputs = [p.unflatten(1, shape) for p, shape in zip(parts, shapes, strict=True)]


class Recorded(nn.Module):
    """A branch whose output goes to a tape too."""

    def __init__(self, inner: nn.Module, tape: Tape) -> None:
        super().__init__()
        self.inner, self.tape = inner, tape

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.tape.record(self.inner(*inputs))


class Replayed(nn.Module):
    """In place of a branch: its output from a tape, whatever it is given."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.tape.outputs.pop(0)


class OneToken(nn.Module):
    """In place of a norm whose output nobody reads: one token, which costs nothing to modulate."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :1, :]


class LayerParts(Parts):
    """A network twice, with the same weights: one records its branches, one replays them."""

    linked = True

    def __init__(self, network: SparseTransformer) -> None:
        super().__init__()
        self.tape = Tape()
        self.network, self.replaying = linked_copy(network), linked_copy(network)
        for block in list(blocks_of(self.network)):
            for name in branches_of(block):
                setattr(block, name, Recorded(getattr(block, name), self.tape))
        for block in list(blocks_of(self.replaying)):
            for name in branches_of(block):
                setattr(block, name, Replayed(self.tape))
            block.norm1, block.norm2 = OneToken(), OneToken()

    def compute(self, x: Tensor, t: Tensor, grid: Grid, condition: dict) -> tuple[Tensor, Tensor]:
        output = self.network(x, t, grid=grid, **condition)
        return output, self.tape.joined(grid)

    def reuse(self, x: Tensor, t: Tensor, kept: Tensor, grid: Grid, condition: dict) -> Tensor:
        self.tape.load(kept, grid)
        return self.replaying(x, t, grid=grid, **condition)


def branches_of(block: nn.Module) -> list[str]:
    return [name for name in BRANCHES if getattr(block, name, None) is not None]


class EveryLast(Planner):
    """Whole calls are those whose distance to the last of the trajectory ``interval`` divides."""

    def __init__(self, interval: int, num_calls: int) -> None:
        super().__init__()
        self.interval, self.num_calls = interval, num_calls

    def whole(self) -> bool:
        return (self.num_calls - 1 - self.index) % self.interval == 0


class WarmThenEvery(Planner):
    """The first ``warm_up`` calls of a stage are whole, then every ``interval``-th."""

    def __init__(self, interval: int, warm_up: int) -> None:
        super().__init__()
        self.interval, self.warm_up = interval, warm_up

    def whole(self) -> bool:
        return self.in_stage < self.warm_up or self.age == self.interval - 1


@MODELS.register_module()
class FORA(PlannedMethod):
    """Attention and MLP outputs kept for ``interval`` calls (FORA, Selvaraju et al. 2024).

    Their gates are those of the call itself. As in the public code (prathebaselva/FORA) steps are
    counted down to 0 and whole where ``interval`` divides them, and at the first; here also at the
    first of each stage.
    """

    def __init__(self, interval: int) -> None:
        self.interval = whole_number('interval of FORA', interval, 1)

    def parts(self, network: SparseTransformer) -> LayerParts:
        return LayerParts(network)

    def planner(self, num_calls: int) -> EveryLast:
        return EveryLast(self.interval, num_calls)


class TaylorMemory(Memory):
    """Finite differences of what whole calls left, and their Taylor series (TaylorSeer, Eq. 3).

    Distances are counted in calls: the step of a difference is that between the last two whole
    calls, for all orders. The first whole call of a stage has order 0, each further one an order
    more, up to ``order``.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.factors: list[Tensor] = []  # (B, F), the i-th derivative by calls
        self.last = 0  # call of the newest

    def keep(self, kept: Tensor, planner: Planner) -> None:
        former = self.factors if planner.in_stage else []
        step, self.last = planner.index - self.last, planner.index
        self.factors = [kept]
        for factor in former[: self.order]:
            self.factors.append((self.factors[-1] - factor) / step)

    def recall(self, planner: Planner) -> Tensor:
        ahead = planner.index - self.last
        forecast = self.factors[0]
        for i, factor in enumerate(self.factors[1:], start=1):
            forecast = torch.add(forecast, factor, alpha=ahead**i / math.factorial(i))
        return forecast


@MODELS.register_module()
class TaylorSeer(PlannedMethod):
    """Attention and MLP outputs forecast by a Taylor series (TaylorSeer, Liu et al. 2025).

    The first ``warm_up`` calls are whole, then every ``interval``-th, as in the public code for
    DiT (Shenyi-Z/TaylorSeer); a stage begins as a trajectory does.

    Args:
        interval: from one whole call to the next.
        order: of the series; 0 keeps the outputs as they are. The authors take 3 with interval 3
            and 4 with 4, for 50 steps of DDIM.
        warm_up: whole calls at the beginning of each stage.
    """

    def __init__(self, interval: int, order: int = 2, warm_up: int = 2) -> None:
        self.interval = whole_number('interval of TaylorSeer', interval, 1)
        self.order = whole_number('order of TaylorSeer', order, 0)
        self.warm_up = whole_number('warm_up of TaylorSeer', warm_up, 1)

    def parts(self, network: SparseTransformer) -> LayerParts:
        return LayerParts(network)

    def memory(self) -> TaylorMemory:
        return TaylorMemory(self.order)

    def planner(self, num_calls: int) -> WarmThenEvery:
        return WarmThenEvery(self.interval, self.warm_up)

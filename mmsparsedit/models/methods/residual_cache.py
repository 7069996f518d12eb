"""What a run of layers added to the tokens at an earlier call: interval caching.

What they add changes slowly along a trajectory (DeepCache, Ma et al. 2024; Delta-DiT, Chen et al.
2024), so it is computed every k-th call and added unchanged in between. B batch, N dense tokens, C
width.
"""

from torch import Tensor

from mmsparsedit.nn import SparseTransformer
from mmsparsedit.registry import MODELS

from .method import Grid, Parts, PlannedMethod, Planner, whole_number


class ResidualParts(Parts):
    """A network of which all but the outer layers may be spared.

    Args:
        first, last: bottom layers, SDTMs and top layers that always run, from either end.
    """

    def __init__(self, network: SparseTransformer, first: int, last: int) -> None:
        super().__init__()
        self.network, self.first, self.last = network, first, last

    def begin(self, x: Tensor, t: Tensor, grid: Grid, condition: dict):
        """Tokens (B, ..., N, C) after the first layers, the condition, and the other layers."""
        tokens, c = self.network.embed(x, t, **condition)
        steps = self.network.steps(grid)
        for step in steps[: self.first]:
            tokens = step(tokens, c)
        end = len(steps) - self.last
        return tokens, c, steps[self.first : end], steps[end:]

    def compute(self, x: Tensor, t: Tensor, grid: Grid, condition: dict) -> tuple[Tensor, Tensor]:
        entered, c, inner, outer = self.begin(x, t, grid, condition)
        tokens = entered
        for step in inner:
            tokens = step(tokens, c)
        residual = tokens - entered
        for step in outer:
            tokens = step(tokens, c)
        return self.network.head(tokens, c), residual

    def reuse(self, x: Tensor, t: Tensor, kept: Tensor, grid: Grid, condition: dict) -> Tensor:
        tokens, c, _, outer = self.begin(x, t, grid, condition)
        tokens = tokens + kept
        for step in outer:
            tokens = step(tokens, c)
        return self.network.head(tokens, c)


class EveryOfStage(Planner):
    """Every ``interval``-th call of a stage is whole."""

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = interval

    def whole(self) -> bool:
        return self.in_stage % self.interval == 0


@MODELS.register_module()
class ResidualCache(PlannedMethod):
    """The inner layers every ``interval``-th call of a stage; the outer ones always.

    Args:
        interval: 1 keeps nothing.
        first, last: layers that always run, an SDTM counted as one; by default the bottom and the
            top, so that the middle is spared. A dense network has no middle and needs both.
    """

    def __init__(self, interval: int, first: int | None = None, last: int | None = None) -> None:
        self.interval = whole_number('interval of the step cache', interval, 1)
        self.first = first if first is None else whole_number('first', first, 0)
        self.last = last if last is None else whole_number('last', last, 0)

    def check(self, network: SparseTransformer) -> None:
        if not network.middle and None in (self.first, self.last):
            raise ValueError(
                'the step cache spares the middle segment, and the network has none: say how many '
                'layers always run with first and last, or leave it out.'
            )
        first, last = self._outer(network)
        layers = len(network.bottom) + len(network.middle) + len(network.top)
        if first + last >= layers:
            raise ValueError(
                f'first {first} and last {last} leave none of {layers} layers (an SDTM is one) to '
                'be spared: lower them.'
            )

    def _outer(self, network: SparseTransformer) -> tuple[int, int]:
        return (
            len(network.bottom) if self.first is None else self.first,
            len(network.top) if self.last is None else self.last,
        )

    def parts(self, network: SparseTransformer) -> ResidualParts:
        return ResidualParts(network, *self._outer(network))

    def planner(self, num_calls: int) -> EveryOfStage:
        return EveryOfStage(self.interval)

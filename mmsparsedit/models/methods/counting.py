"""What a call costs that a method runs: its own operations, counted as any network's are."""

import torch
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.nn.meta import KnownShapes, on_meta

from .method import Grid, Parts


class _Counted(nn.Module):
    """One call of a method as a network; ``kept_shape`` (of one sample) of one that reuses."""

    def __init__(self, parts: Parts, condition: dict, kept_shape: torch.Size | None) -> None:
        super().__init__()
        self.parts, self.condition, self.kept_shape = parts, condition, kept_shape

    def example_inputs(self, batch_size: int, device: str) -> dict:
        inputs = self.parts.example_inputs(batch_size, device)
        return dict(x=inputs['x'], t=inputs['t'])

    def forward(self, x: Tensor, t: Tensor, grid: Grid = None) -> tuple[Tensor, ...]:
        if self.kept_shape is None:
            output = self.parts.compute(x, t, grid, self.condition)[0]
        else:
            kept = torch.zeros(len(x), *self.kept_shape, device=x.device)
            output = self.parts.reuse(x, t, kept, grid, self.condition)
        # what no output depends on is not traced
        return (output,) if self.parts.seen is None else (output, self.parts.seen)


@torch.no_grad()
def part_macs(parts: Parts, network: SparseTransformer, grid: Grid, reused: bool) -> int:
    """MACs of one call of one sample, unguided: whole, or with what was kept of another.

    Args:
        network: of which ``parts`` were made; what it reads once a trajectory is not counted.
    """
    parts, network = on_meta(parts), on_meta(network)
    condition = network.example_inputs(1, 'meta')
    x, t = condition.pop('x'), condition.pop('t')
    condition = network.read_once(condition)
    kept_shape = None
    if reused:
        with KnownShapes():
            _, kept = parts.compute(x, t, grid, condition)  # tells the shapes
        kept_shape = kept.shape[1:]
    return count_macs(_Counted(parts, condition, kept_shape), grid).total

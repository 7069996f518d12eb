"""What a call costs that a method runs: its own operations, counted as any network's are."""

import torch
from torch import Tensor, nn

from mmsparsedit.nn.flops import count_macs, on_meta

from .method import Grid, Parts


class _Counted(nn.Module):
    """One call of a method as a network; ``kept_shape`` (of one sample) of one that reuses."""

    def __init__(self, parts: Parts, kept_shape: torch.Size | None) -> None:
        super().__init__()
        self.parts, self.kept_shape = parts, kept_shape

    def example_inputs(self, batch_size: int, device: str) -> dict:
        return self.parts.example_inputs(batch_size, device)

    def forward(self, x: Tensor, t: Tensor, grid: Grid = None, **condition) -> Tensor:
        if self.kept_shape is None:
            return self.parts.compute(x, t, grid, condition)[0]
        kept = torch.zeros(len(x), *self.kept_shape, device=x.device)
        return self.parts.reuse(x, t, kept, grid, condition)


@torch.no_grad()
def part_macs(parts: Parts, grid: Grid, reused: bool) -> int:
    """MACs of one call of one sample, unguided: whole, or with what was kept of another."""
    if not reused:
        return count_macs(_Counted(parts, None), grid).total
    parts = on_meta(parts)
    inputs = parts.example_inputs(1, 'meta')
    x, t = inputs.pop('x'), inputs.pop('t')
    _, kept = parts.compute(x, t, grid, inputs)  # tells the shapes
    return count_macs(_Counted(parts, kept.shape[1:]), grid).total

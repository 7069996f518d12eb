"""The calls of one trajectory, and what they have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from mmsparsedit.nn.blocks import Mlp

from .low_precision import is_sharded
from .methods import Run
from .stages import Grid


class Trajectory:
    """The calls of one trajectory.

    Args:
        network: the one that runs, in low precision its copy.
        run: a call of it.
        low: it has bf16 weights.
        tf32: a GPU rounds the factors of its float32 products to TF32.
        split: its tokens are split among processes, which have to be called alike.
        fused: its MLPs that leave their GELU to a product for the time of a call.
    """

    def __init__(
        self,
        network: nn.Module,
        run: Run,
        device: torch.device,
        low: bool,
        tf32: bool,
        split: bool,
        fused: Sequence[Mlp],
    ) -> None:
        self._network, self._run, self._device = network, run, device
        self._low, self._tf32, self._unchecked, self._fused = low, tf32, split, fused

    def read(self, condition: dict) -> dict:
        """The condition with what all its calls have in common computed (``read_once``)."""
        if is_sharded(self._network):  # outside of its forward no weight is whole
            return condition
        low = nullcontext()
        if self._low:
            low = torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)
        with tf32_products(self._tf32, self._device), low:
            return self._network.read_once(condition)

    def __call__(
        self, x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False
    ) -> Tensor:
        if self._unchecked:
            self._network.check_same(x)
            self._unchecked = False
        with tf32_products(self._tf32, self._device), gelu_epilogues(self._fused):
            return self._run(x, t, grid, condition, guided)


@contextmanager
def tf32_products(on: bool, device: torch.device) -> Iterator[None]:
    """Within this context a GPU rounds the factors of float32 products to TF32."""
    if not on or device.type != 'cuda':
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def gelu_epilogues(mlps: Sequence[Mlp]) -> Iterator[None]:
    """Within this context, without gradients, the products of ``mlps`` compute their GELUs."""
    for mlp in mlps:
        mlp.gelu_epilogue = True
    try:
        yield
    finally:
        for mlp in mlps:
            mlp.gelu_epilogue = False

"""The calls of one trajectory: which stage each is, and what they have in common.

B batch, N dense tokens, C width; the two halves of guidance counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .low_precision import is_sharded
from .stages import Grid
from .step_cache import StepCache


class Trajectory:
    """The calls of one trajectory.

    Args:
        acceleration: how they are run.
        network: the one that runs, in low precision its copy.
    """

    def __init__(self, acceleration: Any, network: nn.Module, device: torch.device):
        self._acceleration, self._network, self._device = acceleration, network, device
        self._low = acceleration._copy is not None
        self._tf32 = acceleration.dtype != 'float32' and not self._low
        self._cache = StepCache(acceleration.cache_interval)
        self._unchecked = acceleration.token_parallel
        self._kept: Tensor | None = None  # what the middle added to its tokens, (B, ..., N, C)

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
        reused = self._cache.reuses((grid, guided))
        stage = self._acceleration._stage(self._network, (grid, guided, reused))
        with tf32_products(self._tf32, self._device):
            output, residual = stage(x, t, self._kept if reused else None, condition)
        if not reused:
            self._kept = residual
        return output


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

"""Noise that belongs to a request, not to a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class RequestNoise:
    """Standard normal noise, each sample's from a generator of its own.

    A sample then depends on its seed alone, not on batch size, order or number of processes. The
    numbers are drawn on the CPU, so that every device gets the same ones.

    Args:
        seeds: one per sample.
        shape: of one sample, without the batch.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self._shape = tuple(shape)
        self._device = torch.device(device)
        self._dtype = dtype

    def __call__(self) -> Tensor:
        """The next noise (B, *shape)."""
        drawn = torch.empty(
            (len(self.generators), *self._shape), pin_memory=self._device.type == 'cuda'
        )
        for row, generator in zip(drawn, self.generators, strict=True):
            row.normal_(generator=generator)
        return drawn.to(self._device, self._dtype, non_blocking=True)

"""Timesteps on the host: read once for a trajectory instead of once for a call."""

import torch
from torch import Tensor

MOST_PLANNED = 100_000  # a longer tensor is no list of timesteps


class HostTimes:
    """The values of timesteps that a loop hands over one by one, without waiting for the device.

    Pipelines step through ``scheduler.timesteps`` and hand over views of it, which share its
    memory: the place in it says which timestep it is. That holds however often a step calls, and a
    value is never taken from a count of calls. What is no view of the planned tensor is read, and
    so is everything once that tensor was written to.
    """

    def __init__(self) -> None:
        self._planned: Tensor | None = None  # held, so that its memory is no one else's
        self._values: list[float] = []
        self._version: int | None = None

    def plan(self, timesteps: Tensor | None) -> None:
        """Read ``timesteps`` (n,) once; None forgets what was planned."""
        self._planned = timesteps
        if timesteps is None:
            return
        if timesteps.ndim != 1 or not timesteps.is_contiguous():
            raise ValueError(
                f'timesteps of shape {tuple(timesteps.shape)}: expected (n,), contiguous, as '
                '`scheduler.timesteps` is after `set_timesteps`.'
            )
        self._values = read(timesteps)
        self._version = version_of(timesteps)

    def values(self, timestep: Tensor | float) -> list[float]:
        """The different values of ``timestep``, a number or one for each sample."""
        if not isinstance(timestep, Tensor):
            return read(torch.as_tensor(timestep))
        place = self._place(timestep)
        if place is None and waits(timestep) and self._plan_base_of(timestep):
            place = self._place(timestep)
        return read(timestep) if place is None else [self._values[place]]

    def _place(self, timestep: Tensor) -> int | None:
        """Index in the planned tensor of a timestep that is one element of it, maybe expanded."""
        planned = self._planned
        if (
            planned is None
            or timestep.dtype != planned.dtype
            or timestep.device != planned.device
            or any(
                n > 1 and step for n, step in zip(timestep.shape, timestep.stride(), strict=True)
            )
            or timestep.untyped_storage().data_ptr() != planned.untyped_storage().data_ptr()
            or version_of(planned) != self._version
        ):
            return None
        place = timestep.storage_offset() - planned.storage_offset()
        return place if 0 <= place < len(self._values) else None

    def _plan_base_of(self, timestep: Tensor) -> bool:
        """Plan what ``timestep`` is a view of, if that can be the timesteps of a loop."""
        base = timestep._base
        if base is None or base.is_inference() or base.ndim != 1 or not base.is_contiguous():
            return False
        if base is self._planned and version_of(base) == self._version:
            return False
        if not 1 < base.numel() <= MOST_PLANNED:
            return False
        self.plan(base)
        return True


def waits(tensor: Tensor) -> bool:
    """Whether the host waits for a device to know its values."""
    return tensor.device.type not in ('cpu', 'meta')


def read(tensor: Tensor) -> list[float]:
    return tensor.reshape(-1).tolist()


def version_of(tensor: Tensor) -> int | None:
    """Count of writes; inference tensors keep none."""
    return None if tensor.is_inference() else tensor._version

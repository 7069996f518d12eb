"""Exponential moving average of weights in few kernels and without waiting for the device."""

import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmsparsedit.registry import MODELS


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """MMEngine's average (``momentum`` = 1 - decay, the first update copies), fused.

    All weights are averaged by one ``foreach`` call, and whether an update is the first is known
    on the host: MMEngine's own loops over weights and reads a counter from the device.
    """

    def __init__(self, model: nn.Module, momentum: float = 1e-4, **kwargs) -> None:
        super().__init__(model, momentum=momentum, **kwargs)
        self._started: bool | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        if self._started is None:
            self._started = bool(self.steps > 0)  # once: a resumed average has begun
        source = dict(model.named_parameters())
        averaged = list(self.avg_parameters.values())
        current = [source[name] for name in self.avg_parameters]
        if self._started:
            torch._foreach_lerp_(averaged, current, self.momentum)
        else:
            torch._foreach_copy_(averaged, current)
            self._started = True
        self.steps += 1

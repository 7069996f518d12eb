"""Exponential moving average of weights: made in few kernels, and used to sample."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmsparsedit.registry import MODELS


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """MMEngine's average (``momentum`` = 1 - decay, the first update copies), fused.

    All weights are averaged by one ``foreach`` call, and whether an update is the first is known
    on the host: MMEngine's own loops over weights and reads a counter from the device. Only
    weights and buffers are held, under their names: ``module`` cannot run.

    Args:
        interval: calls of ``update_parameters`` per update, which comes with the last of them:
            the Runner sets it to the iterations of a gradient accumulation.
        gamma: a warm-up as that of MMEngine's ``MomentumAnnealingEMA``: the momentum is
            gamma / (gamma + updates) until that falls below ``momentum``; None is constant.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 1e-4,
        interval: int = 1,
        gamma: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(_weights(model), momentum=momentum, interval=interval, **kwargs)
        self.gamma = gamma
        self._calls: int | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        if self._calls is None:
            self._calls = int(self.steps)  # read once: a resumed average has begun
        self._calls += 1
        self.steps += 1
        if self._calls % self.interval:
            return
        source = dict(model.named_parameters())
        averaged = [local(average) for average in self.avg_parameters.values()]
        current = [local(source[name]) for name in self.avg_parameters]
        if self._calls == self.interval:
            torch._foreach_copy_(averaged, current)
        else:
            torch._foreach_lerp_(averaged, current, self.momentum_now())

    def momentum_now(self) -> float:
        """Share of the current weights in the next average."""
        if self.gamma is None:
            return self.momentum
        before = self._calls // self.interval - 1
        return max(self.momentum, self.gamma / (self.gamma + before))


@contextmanager
def averaged_weights(runner) -> Iterator[None]:
    """Sampling amid a training: the model holds the averages of ``EMAHook``, in eval mode.

    On leaving, weights, mode and the state of the random number generators are what they were:
    training goes on as if nothing had been. Validation and test do the same through ``EMAHook``.
    """
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    training = runner.model.training
    for hook in averages:
        hook.before_val_epoch(runner)
    runner.model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        runner.model.train(training)
        for hook in averages:
            hook.after_val_epoch(runner)


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor (FSDP)."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _weights(module: nn.Module) -> nn.Module:
    """The parameters and buffers of a module under their names, without what computes."""
    bare = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        bare.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        bare.register_buffer(name, buffer, name not in module._non_persistent_buffers_set)
    for name, child in module.named_children():
        bare.add_module(name, _weights(child))
    return bare

"""Optimizer steps that do not wait for the device, in float32 or with bf16 mixed precision."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmsparsedit.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BufferedOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper``, whose norm of the gradients stays on the device.

    The stock wrapper reads the norm at every clipping, which waits for the device to finish.
    ``BufferedRuntimeInfoHook`` takes it from here and logs it with the loss.
    """

    _grad_norm: Tensor | None = None

    def take_grad_norm(self) -> Tensor | None:
        """The norm () before the last clipping, once; None if nothing was clipped since."""
        norm, self._grad_norm = self._grad_norm, None
        return norm

    def _clip_grad(self) -> None:
        weights = [p for group in self.optimizer.param_groups for p in group['params']]
        weights = [p for p in weights if p.requires_grad and p.grad is not None]
        norm = self.clip_func(weights, **self.clip_grad_kwargs) if weights else None
        if norm is not None:  # clipping by value has none
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            self._grad_norm = norm.detach()


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(BufferedOptimWrapper):
    """``BufferedOptimWrapper`` with bf16 autocast of the forward pass, on GPUs and CPUs.

    Weights, gradients, averages and updates stay float32. bf16 has float32's range, so the loss is
    not scaled; MMEngine's ``AmpOptimWrapper`` scales it, which waits for the device at every step,
    and refuses CPUs.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        # a pass uses each weight once: keeping the casts would only hold memory
        cast = autocast(dtype=torch.bfloat16, cache_enabled=False)
        with super().optim_context(model), cast:
            yield

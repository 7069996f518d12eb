"""bf16 mixed precision on GPUs and CPUs."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmsparsedit.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper`` with bf16 autocast of the forward pass.

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

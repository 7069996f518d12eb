"""Optimizer steps that do not wait for the device, in float32 or with bf16 mixed precision."""

import logging
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmsparsedit.registry import OPTIM_WRAPPERS

from .divergence import DivergenceError, first_bad


@OPTIM_WRAPPERS.register_module()
class BufferedOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper``, whose norm of the gradients stays on the device.

    The stock wrapper reads the norm at every clipping, which waits for the device to finish.
    ``BufferedRuntimeInfoHook`` takes it from here and logs it with the loss.

    Args:
        skip_nonfinite: leave out an update whose gradients are not finite, and stop after so many
            in a row. 0 looks at no gradient; any other number waits for the device at each step.
        args: of ``OptimWrapper``.
    """

    _grad_norm: Tensor | None = None

    def __init__(self, *args, skip_nonfinite: int = 0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if skip_nonfinite < 0:
            raise ValueError(
                f'skip_nonfinite must be at least 0 (updates in a row), got {skip_nonfinite}.'
            )
        self.skip_nonfinite = skip_nonfinite
        self.skipped = 0  # of the whole run
        self._in_a_row = 0

    def step(self, **kwargs) -> None:
        """MMEngine's step; left out where the gradients are not finite, if that was asked for."""
        if self.skip_nonfinite:
            grads = ((name, p.grad) for name, p in self._weights() if p.grad is not None)
            bad = first_bad(grads)
            if bad is not None:
                self._skip(bad)
                return
            self._in_a_row = 0
        super().step(**kwargs)

    def _weights(self):
        groups = enumerate(self.optimizer.param_groups)
        return ((f'{g}.{i}', p) for g, group in groups for i, p in enumerate(group['params']))

    def _skip(self, name: str) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self.skip_nonfinite:
            raise DivergenceError(
                f'the gradient of weight {name} was not finite in {self._in_a_row} updates in a '
                'row, which were left out. Go on from the last checkpoint with a lower learning '
                'rate, or without mixed precision.'
            )
        print_log(
            f'an update was left out: the gradient of weight {name} is not finite ({self.skipped} '
            'so far)',
            'current',
            logging.WARNING,
        )

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

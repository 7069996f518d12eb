"""A run whose loss is no number stops instead of burning hours."""

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from mmsparsedit.registry import HOOKS

from ..divergence import divergence


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Every ``interval`` iterations stop the run if a loss since then was NaN or infinite.

    The iteration is remembered on the device, so that the error names the first bad one without
    waiting for the device at each. Runs before the checkpoint of the same iteration. An update
    that ``optim_wrapper.skip_nonfinite`` left out does not count.

    Raises:
        DivergenceError: names iteration, stage and the last sound checkpoint.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval
        self._first_bad: torch.Tensor | None = None  # iteration, -1 for none

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if getattr(runner.optim_wrapper, 'skip_nonfinite', 0):
            return
        loss = torch.as_tensor(outputs['loss']).detach()
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.int64, device=loss.device)
        bad = (self._first_bad < 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(bad, runner.iter, self._first_bad)
        if self.is_last_train_iter(runner) or self.every_n_train_iters(runner, self.interval):
            self.check(runner)

    def check(self, runner) -> None:
        """Look at what was remembered; all processes call it."""
        if self._first_bad is None:
            return
        first = self._first_bad.clone()
        all_reduce(first, 'max')
        if first >= 0:
            raise divergence(runner, 'the loss is not finite', int(first))

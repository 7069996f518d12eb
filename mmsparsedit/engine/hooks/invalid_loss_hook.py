"""A run whose loss is no number stops instead of burning hours."""

import torch
from mmengine.hooks import Hook

from mmsparsedit.registry import HOOKS


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Every ``interval`` iterations look at the loss; stop the run if it is NaN or infinite.

    Runs before the checkpoint of the same iteration, so that the newest one is still sound.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        saving = self.is_last_train_iter(runner)
        if not saving and not self.every_n_train_iters(runner, self.interval):
            return
        loss = torch.as_tensor(outputs['loss'])
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f'the loss is {loss.item()} after iteration {runner.iter + 1}. Resume from the '
                'newest checkpoint with a lower learning rate, with clip_grad, or without mixed '
                'precision.'
            )

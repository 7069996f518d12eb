"""Clipping of gradients that begins late in training, as in Latte's recipe."""

from mmengine.hooks import Hook

from mmsparsedit.registry import HOOKS


@HOOKS.register_module()
class DelayedClipHook(Hook):
    """Holds ``optim_wrapper.clip_grad`` back before iteration ``start_iter``.

    Raises:
        ValueError: before training, if the optimizer wrapper clips nothing.
    """

    priority = 'NORMAL'

    def __init__(self, start_iter: int) -> None:
        if start_iter < 0:
            raise ValueError(f'start_iter must be at least 0, got {start_iter}.')
        self.start_iter = start_iter
        self._clip_grad: dict = {}

    def before_train(self, runner) -> None:
        self._clip_grad = runner.optim_wrapper.clip_grad_kwargs
        if not self._clip_grad:
            raise ValueError(
                'DelayedClipHook has nothing to delay: set optim_wrapper.clip_grad='
                'dict(max_norm=...), or drop the hook.'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        clips = runner.iter >= self.start_iter
        runner.optim_wrapper.clip_grad_kwargs = self._clip_grad if clips else None

    def after_train(self, runner) -> None:
        runner.optim_wrapper.clip_grad_kwargs = self._clip_grad

"""What is logged of the loss, without waiting for the device at every iteration."""

import torch
from mmengine.hooks import RuntimeInfoHook

from mmsparsedit.registry import HOOKS

from ..optim_wrappers import BufferedOptimWrapper


@HOOKS.register_module()
class BufferedRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, whose terms stay on the device for a window of iterations.

    The stock hook reads every term of the loss at every iteration, and each reading waits for the
    device to finish. The norm of the gradients comes from ``BufferedOptimWrapper``.

    Args:
        interval: iterations of a window; that of the logger or a divisor of it.
    """

    def __init__(self, interval: int = 10) -> None:
        super().__init__()
        self.interval = interval
        self._buffer: list[dict] = []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        outputs = dict(outputs or {})
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, BufferedOptimWrapper):
            norm = wrapper.take_grad_norm()
            if norm is not None:
                outputs[wrapper.grad_name] = norm
        self._buffer.append(outputs)
        if self.every_n_inner_iters(batch_idx, self.interval) or self.is_last_train_iter(runner):
            self._flush(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        self._flush(runner)

    def _flush(self, runner) -> None:
        names = [name for outputs in self._buffer for name in outputs]
        values = [torch.as_tensor(v).detach() for o in self._buffer for v in o.values()]
        self._buffer = []
        if values:
            for name, value in zip(names, torch.stack(values).tolist(), strict=True):
                runner.message_hub.update_scalar(f'train/{name}', value)

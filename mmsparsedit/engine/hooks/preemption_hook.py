"""Runs that are asked to stop leave a checkpoint behind."""

import signal

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, is_distributed
from mmengine.hooks import CheckpointHook, Hook

from mmsparsedit.registry import HOOKS


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM (a scheduler's warning) finish the iteration, save, and exit with 143.

    ``--resume`` then continues with the weights that an uninterrupted run would have had. A
    second SIGTERM ends the process at once.

    Args:
        interval: iterations between the processes' agreements on whether one of them was asked;
            a single process looks after every iteration.
    """

    priority = 'LOWEST'  # after the averages and the checkpoint of this iteration

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval
        self._asked = False

    def before_train(self, runner) -> None:
        def ask(signum, frame) -> None:
            self._asked = True
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        signal.signal(signal.SIGTERM, ask)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self._agreed(batch_idx) or runner.iter + 1 >= runner.max_iters:
            return
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook._save_checkpoint(runner)
                runner.logger.warning(
                    f'SIGTERM: saved {hook.last_ckpt} after iteration {runner.iter + 1} of '
                    f'{runner.max_iters}; continue with --resume.'
                )
        barrier()  # launchers end all processes once one has ended: the file is whole by then
        raise SystemExit(128 + signal.SIGTERM)

    def _agreed(self, batch_idx: int) -> bool:
        if not is_distributed():
            return self._asked
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return False
        asked = torch.tensor(float(self._asked), device=get_device())
        all_reduce(asked, 'max')
        return bool(asked.item())

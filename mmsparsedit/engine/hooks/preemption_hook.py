"""Runs that are asked to stop leave a checkpoint behind."""

import os
import signal
import threading
import time

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, is_distributed
from mmengine.hooks import Hook

from mmsparsedit.registry import HOOKS

from ..heartbeat import beat
from .checkpoint_hook import save_now

# a launcher and a scheduler may both tell a process, at nearly the same time
ONE_REQUEST_SECONDS = 10


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM (a scheduler's warning) finish the iteration, save, and exit with 143.

    ``--resume`` then continues with the weights that an uninterrupted run would have had. A
    SIGTERM more than ten seconds after the first ends the process at once. Processes that
    ``torchrun`` started take its death for a SIGTERM.

    Args:
        interval: iterations between the processes' agreements on whether one of them was asked;
            a single process looks after every iteration.
    """

    priority = 'LOWEST'  # after the averages and the checkpoint of this iteration

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval
        self._asked_at: float | None = None
        self._parent = os.getppid() if 'TORCHELASTIC_RUN_ID' in os.environ else None

    def before_train(self, runner) -> None:
        def ask(signum, frame) -> None:
            now = time.monotonic()
            if self._asked_at is not None and now - self._asked_at > ONE_REQUEST_SECONDS:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            self._asked_at = self._asked_at or now

        signal.signal(signal.SIGTERM, ask)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self._agreed(runner, batch_idx) or runner.iter + 1 >= runner.max_iters:
            return
        save_now(runner, 'SIGTERM', runner.iter + 1)
        barrier()  # launchers end all processes once one has ended: the file is whole by then
        raise SystemExit(128 + signal.SIGTERM)

    def _asked(self) -> bool:
        orphaned = self._parent is not None and os.getppid() != self._parent
        return orphaned or self._asked_at is not None

    def _agreed(self, runner, batch_idx: int) -> bool:
        if not is_distributed():
            return self._asked()
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return False
        beat(runner)
        asked = torch.tensor(float(self._asked()), device=get_device())
        all_reduce(asked, 'max')
        return bool(asked.item())


def worker_ignores_sigterm(worker_id: int) -> None:
    """For workers of a data loader: a SIGTERM to the whole group is the main process's to answer.

    It needs their batches until it has saved. They end with it, or when it tells them itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

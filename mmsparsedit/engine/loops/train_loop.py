"""A training loop that resumes at a position of the data, and saves when its data fail."""

import signal
from collections.abc import Iterator
from itertools import chain, repeat

from mmengine.runner import IterBasedTrainLoop

from mmsparsedit.registry import LOOPS

from ..hooks.checkpoint_hook import save_now


@LOOPS.register_module()
class SeekableTrainLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop`` for an infinite sampler with ``seek``.

    The stock loop reads one batch per past iteration when it resumes: hours at iteration 400 000.
    This one tells the sampler where to begin. Where no batch comes, since a worker died or a file
    is gone, it saves before the error ends the run; what is lost then is nothing. A run that was
    stopped in its last validation repeats it when it goes on.
    """

    def __init__(self, runner, dataloader, max_iters: int, **kwargs) -> None:
        super().__init__(runner, dataloader, max_iters, **kwargs)
        if not hasattr(self.dataloader.sampler, 'seek'):
            raise ValueError(
                f'{type(self).__name__} needs a sampler with seek(), got '
                f'{type(self.dataloader.sampler).__name__}: set train_dataloader.sampler='
                "dict(type='SeekableSampler')."
            )

    def run(self):
        """Train from iteration ``self.iter`` to ``max_iters``."""
        start = self._iter
        self.dataloader.sampler.seek(start * self.dataloader.batch_size)
        # workers inherit that SIGTERM waits, until they ignore it (``worker_ignores_sigterm``)
        waiting = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            batches = iter(self.dataloader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        # what the stock loop reads to skip it are placeholders
        batches = chain(repeat(None, start), self._saved_if_lost(batches, start))
        self.dataloader_iterator = batches
        # torch raises amid an iteration, whose weights are half updated then, when a worker dies
        self._died, self._at_death = None, signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, self._remember)
        try:
            model = super().run()
        finally:
            signal.signal(signal.SIGCHLD, self._at_death)
        if start >= self._max_iters and self.runner.val_loop is not None:
            self.runner.val_loop.run()  # of a run that was stopped before its metrics were written
        return model

    def _remember(self, *told) -> None:
        self._died = told

    def _saved_if_lost(self, batches: Iterator, start: int) -> Iterator:
        while True:
            try:
                if self._died is not None and callable(self._at_death):
                    told, self._died = self._died, None
                    self._at_death(*told)
                batch = next(batches)
            except StopIteration:
                return
            except Exception:
                if self._iter > start:
                    save_now(self.runner, 'no batch came', self._iter)
                raise
            yield batch

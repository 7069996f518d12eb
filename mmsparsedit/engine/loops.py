"""A training loop that resumes at a position of the data instead of replaying it."""

from mmengine.runner import IterBasedTrainLoop

from mmsparsedit.registry import LOOPS


@LOOPS.register_module()
class SeekableTrainLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop`` for an infinite sampler with ``seek``.

    The stock loop reads one batch per past iteration when it resumes: hours at iteration 400 000.
    This one tells the sampler where to begin. ``stop_training`` ends it after the current
    iteration.
    """

    def __init__(self, runner, dataloader, max_iters: int, val_interval: int = 1000, **kwargs):
        super().__init__(runner, dataloader, max_iters, val_interval=val_interval, **kwargs)
        if not hasattr(self.dataloader.sampler, 'seek'):
            raise ValueError(
                f'{type(self).__name__} needs a sampler with seek(), got '
                f'{type(self.dataloader.sampler).__name__}: set train_dataloader.sampler='
                "dict(type='SeekableSampler')."
            )

    def run(self):
        """Train from iteration ``self.iter`` to ``max_iters``."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader.sampler.seek(self._iter * self.dataloader.batch_size)
        batches = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if (
                self.runner.val_loop is not None
                and not self.stop_training
                and self._iter >= self.val_begin
                and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
            ):
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

"""A training loop that resumes at a position of the data instead of replaying it."""

from itertools import chain, repeat

from mmengine.runner import IterBasedTrainLoop

from mmsparsedit.registry import LOOPS


@LOOPS.register_module()
class SeekableTrainLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop`` for an infinite sampler with ``seek``.

    The stock loop reads one batch per past iteration when it resumes: hours at iteration 400 000.
    This one tells the sampler where to begin.
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
        self.dataloader.sampler.seek(self._iter * self.dataloader.batch_size)
        # what the stock loop reads to skip it are placeholders
        self.dataloader_iterator = chain(repeat(None, self._iter), iter(self.dataloader))
        return super().run()

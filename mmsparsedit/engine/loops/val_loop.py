"""Validation amid a training in fewer steps than the test that follows it."""

from mmengine.runner import ValLoop

from mmsparsedit.registry import LOOPS

from ..sampling import fewer_steps


@LOOPS.register_module()
class SampledValLoop(ValLoop):
    """MMEngine's ``ValLoop`` with a number of steps of its own.

    Args:
        num_steps: of the sampler, if it has more; None for all. The metrics of two numbers of steps
            are not to be compared; ``metrics.json`` says which it was.
    """

    def __init__(self, *args, num_steps: int | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.num_steps = num_steps

    def run(self) -> dict:
        """Launch validation."""
        with fewer_steps(self.runner, self.num_steps):
            return super().run()

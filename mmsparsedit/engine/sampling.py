"""Sampling amid a training: what is looked at often takes fewer steps than a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmsparsedit.registry import TASK_UTILS

from .bare import bare_model


@contextmanager
def fewer_steps(runner, num_steps: int | None) -> Iterator[None]:
    """The model with the sampler of its config in ``num_steps``, if it has more of them.

    Raises:
        ValueError: the sampler has no such number of steps.
    """
    model = bare_model(runner)
    if num_steps is None or num_steps >= getattr(model.sampler, 'num_steps', 0):
        yield
        return
    whole = model.sampler
    options = {k: v for k, v in runner.cfg.model.sampler.items() if k != 'respacing'}
    try:
        model.sampler = TASK_UTILS.build({**options, 'num_steps': num_steps})
        model.sampler.timesteps(model.diffusion)  # raises before any work
        yield
    finally:
        model.sampler = whole

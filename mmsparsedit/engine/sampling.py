"""Sampling amid a training: what is looked at often takes fewer steps than a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmsparsedit.registry import TASK_UTILS

from .bare import bare_model


@contextmanager
def fewer_steps(runner, num_steps: int | None) -> Iterator[None]:
    """The model with the sampler of its config in ``num_steps``, where it has more.

    Raises:
        ValueError: the sampler has no such number of steps.
    """
    if num_steps is None:
        yield
        return
    model = bare_model(runner)
    whole = model.sampler
    if num_steps < whole.num_steps:
        options = {k: v for k, v in runner.cfg.model.sampler.items() if k != 'respacing'}
        model.sampler = TASK_UTILS.build({**options, 'num_steps': num_steps})
    try:
        model.sampler.timesteps(model.diffusion)  # raises before any work
        yield
    finally:
        model.sampler = whole

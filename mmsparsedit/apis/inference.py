"""A generator from a config and a checkpoint, and samples from it."""

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement

from mmsparsedit.models import DiffusionGenerator, load_pretrained
from mmsparsedit.registry import MODELS

from .launch import load_config

# short names of samplers for the command line; a config can say anything
SAMPLERS = {
    'ddpm': dict(type='DDPMSampler'),
    'ddim': dict(type='DDIMSampler'),
    'euler': dict(type='EulerSampler'),
    'heun': dict(type='HeunSampler'),
    'dpmsolver++': dict(type='DiffusersSampler', scheduler='DPMSolverMultistepScheduler'),
    'unipc': dict(type='DiffusersSampler', scheduler='UniPCMultistepScheduler'),
    'sa-solver': dict(type='DiffusersSampler', scheduler='SASolverScheduler'),
}


def init_model(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device = 'cpu',
) -> DiffusionGenerator:
    """The generator of a config, in eval mode.

    Args:
        config: file or loaded config.
        checkpoint: anything that ``load_pretrained`` takes; None keeps the initial weights.

    Raises:
        FileNotFoundError, ValueError: no such file; weights that do not fit.
    """
    if not isinstance(config, Config):
        config = load_config(os.fspath(config))
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    generator = MODELS.build(config.model)
    if checkpoint is not None:
        load_pretrained(generator.network, checkpoint)
    return generator.to(device).eval()


def choose_sampler(
    model_config: dict,
    sampler: str | None = None,
    num_steps: int | None = None,
    cfg_scale: float | None = None,
) -> None:
    """Change sampler, steps or guidance of a generator's config in place.

    Args:
        sampler: a name of ``SAMPLERS``; without ``num_steps`` its own default of steps holds.

    Raises:
        ValueError: an unknown sampler; the known ones are named.
    """
    if sampler is not None:
        if sampler not in SAMPLERS:
            raise ValueError(f'sampler {sampler!r} is unknown: use one of {", ".join(SAMPLERS)}.')
        model_config['sampler'] = dict(SAMPLERS[sampler])
    if num_steps is not None:
        model_config['sampler']['num_steps'] = num_steps
    if cfg_scale is not None:
        model_config['cfg_scale'] = cfg_scale


def generate(
    generator: DiffusionGenerator,
    requests: Sequence[dict],
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Iterator[BaseDataElement]:
    """Samples for requests, in their order.

    Args:
        requests: dicts with ``seed`` and what the generator is conditioned on: ``label``, or
            ``prompt``. A sample does not depend on the others of its batch.
        progress: called with the number of samples finished.
    """
    for start in range(0, len(requests), batch_size):
        batch = torch.utils.data.default_collate(list(requests[start : start + batch_size]))
        yield from generator.predict(**batch)
        if progress:
            progress(min(start + batch_size, len(requests)))

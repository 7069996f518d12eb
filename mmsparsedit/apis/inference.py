"""A generator from a config and a checkpoint, and samples from it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement

from mmsparsedit.mim import config_path
from mmsparsedit.models import DiffusionGenerator, load_pretrained
from mmsparsedit.registry import MODELS, TASK_UTILS

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
        FileNotFoundError, ValueError: no such file; weights that do not fit, or those of a dense
            network for a sparse one.
    """
    if not isinstance(config, Config):
        config = load_config(os.fspath(config))
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    generator = MODELS.build(config.model)
    if checkpoint is not None:
        report = load_pretrained(generator.network, checkpoint)
        report.check_complete(checkpoint)
    return generator.to(device).eval()


def get_config(name: str) -> Config:
    """A config of the package by its name, as ``mmengine.hub.get_config('mmsparsedit::' + name)``.

    Args:
        name: ``sparsedit/digits.py``; ``mmsparsedit::`` before it makes no difference.

    Raises:
        FileNotFoundError: no such config.
    """
    return load_config(config_path(name))


def get_model(name: str, checkpoint: str | os.PathLike | None = None) -> DiffusionGenerator:
    """The generator of a config of the package, on the CPU, in eval mode."""
    return init_model(get_config(name), checkpoint)


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


def set_sampler(generator: DiffusionGenerator, model_config: dict) -> None:
    """Give a generator sampler, guidance scale and schedule of a config, its weights left alone.

    Raises:
        ValueError: a setting that cannot work with the network or the process.
    """
    before = generator.sampler, generator.guidance, generator.prune
    scale = model_config.get('cfg_scale', 1.0)
    generator.sampler = TASK_UTILS.build(model_config['sampler'])
    generator.guidance = replace(generator.guidance, scale=scale)
    prune = model_config.get('prune')
    generator.prune = None if prune is None else TASK_UTILS.build(prune)
    try:
        generator._check()
    except ValueError:
        generator.sampler, generator.guidance, generator.prune = before
        raise


def make_requests(
    labels: int | Sequence[int] | None = None,
    prompts: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 0,
) -> list[dict]:
    """Requests for all labels or prompts with all seeds, conditions first.

    Raises:
        ValueError: labels and prompts; no seed.
    """
    if labels is not None and prompts is not None:
        raise ValueError('give labels or prompts, not both.')
    seeds = [seeds] if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0:
        raise ValueError(f'got seeds {seeds}, expected whole numbers from 0, one at least.')
    if prompts is not None:
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return [dict(prompt=prompt, seed=seed) for prompt in prompts for seed in seeds]
    if labels is not None:
        labels = [labels] if isinstance(labels, int) else labels
        return [dict(label=int(label), seed=seed) for label in labels for seed in seeds]
    return [dict(seed=seed) for seed in seeds]


def check_requests(generator: DiffusionGenerator, requests: Sequence[dict]) -> None:
    """Refuse what a generator cannot sample, before any work.

    Raises:
        ValueError: nothing asked for, no label or prompt where one is needed, or a label that the
            network does not have.
        FileNotFoundError: no autoencoder to decode with.
    """
    asked = 'prompt' if hasattr(generator, 'text_encoder') else 'label'
    classes = generator.network.num_classes if asked == 'label' else None
    if not requests:
        raise ValueError(f'nothing to sample: give at least one {asked}.')
    if (asked == 'prompt' or classes is not None) and any(asked not in each for each in requests):
        raise ValueError(
            f'the generator is conditional: say what to sample with {asked}s (--{asked}s).'
        )
    if asked == 'label' and any('prompt' in each for each in requests):
        raise ValueError('the generator takes labels, not prompts: give labels (--labels).')
    wrong = [e['label'] for e in requests if classes and not 0 <= e['label'] < classes]
    if wrong:
        raise ValueError(
            f'label {wrong[0]} is out of range: the network has {classes} classes, 0 to '
            f'{classes - 1}.'
        )
    if generator.autoencoder is not None:
        generator.autoencoder.check()


def describe_request(sample: BaseDataElement) -> dict:
    """What a sample was made for: seed, and label or prompt."""
    return {k: v for k, v in sample.items() if k not in ('image', 'video')}


def save_sample(folder: str | os.PathLike, sample: BaseDataElement, setting: dict) -> Path:
    """Write a sample as PNG or mp4 that carries its request and ``setting``; returns the path."""
    from mmsparsedit.visualization import save_image, save_mp4

    request = describe_request(sample)
    path = Path(folder) / file_stem(request)
    if 'video' in sample:
        path = path.with_name(f'{path.name}.mp4')
        save_mp4(path, sample.video, request={**request, **setting})
    else:
        path = path.with_name(f'{path.name}.png')
        save_image(path, sample.image, {**request, **setting})
    return path


def file_stem(request: dict) -> str:
    """A file name that tells the request: label and seed, or the prompt's first words."""
    if 'label' in request:
        return f'label{request["label"]}_seed{request["seed"]}'
    words = ''.join(c if c.isalnum() else '_' for c in request.get('prompt', 'sample')[:60])
    return f'{words}_seed{request["seed"]}'


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

"""A generator from a config and a checkpoint."""

import os

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsparsedit.models import DiffusionGenerator, load_pretrained
from mmsparsedit.registry import MODELS


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
        config = Config.fromfile(os.fspath(config))
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    generator = MODELS.build(config.model)
    if checkpoint is not None:
        load_pretrained(generator.network, checkpoint)
    return generator.to(device).eval()

"""Sparse-token diffusion transformers on the OpenMMLab stack."""

from .mim import config_path
from .version import __version__

__all__ = ['__version__', 'config_path']

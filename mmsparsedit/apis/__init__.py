"""Entry points for scripts and notebooks."""

from .inference import choose_sampler, generate, init_model

__all__ = ['choose_sampler', 'generate', 'init_model']

"""Diffusion processes, guidance and samplers."""

from .diffusers_sampler import DiffusersSampler
from .gaussian import GaussianDiffusion, Posterior
from .guidance import Guidance
from .noise import RequestNoise
from .rectified_flow import RectifiedFlow
from .respacing import space_timesteps
from .samplers import (
    DDIMSampler,
    DDPMSampler,
    EulerSampler,
    HeunSampler,
    ddim_step,
    ddpm_step,
    sample_ddim,
    sample_ddpm,
    sample_euler,
    sample_heun,
)

__all__ = [
    'DDIMSampler',
    'DDPMSampler',
    'DiffusersSampler',
    'EulerSampler',
    'GaussianDiffusion',
    'Guidance',
    'HeunSampler',
    'Posterior',
    'RectifiedFlow',
    'RequestNoise',
    'ddim_step',
    'ddpm_step',
    'sample_ddim',
    'sample_ddpm',
    'sample_euler',
    'sample_heun',
    'space_timesteps',
]

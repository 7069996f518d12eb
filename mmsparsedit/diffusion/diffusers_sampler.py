"""Other solvers, from diffusers' schedulers: DPM-Solver++, UniPC, SA-Solver and the rest."""

import inspect
from typing import Any

import torch
from torch import Tensor

from mmsparsedit.registry import TASK_UTILS

from .gaussian import GaussianDiffusion
from .samplers import Callback, Model, Noise, check_steps


@TASK_UTILS.register_module()
class DiffusersSampler:
    """A scheduler of diffusers on this package's processes.

    The scheduler is built on the trained betas of the process and told that the network predicts
    eps; the learned variance is left aside. Noise that a stochastic solver draws comes from each
    request's own generator.

    Args:
        num_steps: 1 to T.
        scheduler: class in ``diffusers``, e.g. ``'DPMSolverMultistepScheduler'`` (DPM-Solver++ 2M,
            Lu et al. 2022), ``'UniPCMultistepScheduler'``, ``'SASolverScheduler'``.
        options: of its constructor.
    """

    def __init__(
        self,
        num_steps: int = 20,
        scheduler: str = 'DPMSolverMultistepScheduler',
        options: dict | None = None,
    ) -> None:
        self.num_steps = check_steps(num_steps)
        self.scheduler = scheduler
        self.options = dict(options or {})

    def build(self, diffusion: GaussianDiffusion, device: torch.device | str = 'cpu') -> Any:
        """The scheduler with its timesteps set; each trajectory needs a fresh one."""
        if not isinstance(diffusion, GaussianDiffusion):
            raise ValueError(
                f'DiffusersSampler samples a GaussianDiffusion, got {type(diffusion).__name__}: '
                'use EulerSampler or HeunSampler for flows.'
            )
        check_steps(self.num_steps, diffusion.num_train_timesteps)
        try:
            import diffusers
        except ImportError as error:
            raise ImportError(
                f'sampler {self.scheduler!r} needs diffusers, which is not installed: pip install '
                "'mmsparsedit[diffusers]', or use DDPMSampler or DDIMSampler."
            ) from error
        cls = getattr(diffusers, self.scheduler, None)
        if cls is None or not self.scheduler.endswith('Scheduler'):
            known = [n for n in dir(diffusers) if n.endswith('Scheduler') and 'Flax' not in n]
            raise ValueError(
                f'diffusers has no scheduler {self.scheduler!r}; it has {", ".join(known)}.'
            )
        settings = {
            'num_train_timesteps': diffusion.num_train_timesteps,
            'trained_betas': diffusion.betas.numpy(),
            'prediction_type': 'epsilon',
            **self.options,
        }
        with torch.device('cpu'):  # whatever device a model is being built on
            scheduler = cls(**settings)
        scheduler.set_timesteps(self.num_steps, device=device)
        return scheduler

    def timesteps(self, diffusion: GaussianDiffusion) -> list[float]:
        """Original timestep of every network call, in the order of sampling."""
        return [float(t) for t in self.build(diffusion).timesteps]

    def __call__(
        self,
        model: Model,
        x: Tensor,
        diffusion: GaussianDiffusion,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor:
        scheduler = self.build(diffusion)
        accepted = inspect.signature(scheduler.step).parameters
        drawn = {'generator': noise.generators} if 'generator' in accepted else {}
        channels, channel_dim = x.shape[diffusion.channel_dim], diffusion.channel_dim
        x = x * scheduler.init_noise_sigma
        on_host = scheduler.timesteps.tolist()  # once: reading them one by one waits every step
        for i, t in enumerate(scheduler.timesteps):
            output = model(scheduler.scale_model_input(x, t), float(on_host[i]))
            eps = output.narrow(channel_dim, 0, channels)
            x = scheduler.step(eps, t, x, **drawn, return_dict=False)[0]
            if callback:
                callback(len(on_host) - 1 - i, float(on_host[i]), x)
        return x

"""Samplers: plain functions, each on one screen, and the registered objects that configs name.

``model(x, t)`` returns the network's output for x (B, ...) at the original timestep t, a number of
the host; guidance, labels and the token grid of t are its business. ``noise()`` returns fresh
standard normal noise like x. ``callback(i, t, x)``, where given, is called after step i.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmsparsedit.registry import TASK_UTILS

from .gaussian import GaussianDiffusion
from .rectified_flow import RectifiedFlow

Model = Callable[[Tensor, float], Tensor]
Noise = Callable[[], Tensor]
Callback = Callable[[int, float, Tensor], None]


def ddpm_step(
    diffusion: GaussianDiffusion,
    output: Tensor,
    x: Tensor,
    i: int,
    noise: Tensor,
    clip_denoised: bool = False,
) -> Tensor:
    """One ancestral step x_i -> x_{i-1} (Ho et al. 2020, Alg. 2); the last adds no noise."""
    p = diffusion.p_mean_variance(output, x, i, clip_denoised)
    if i == 0:
        return p.mean
    return p.mean + (0.5 * p.log_variance).exp() * noise


def ddim_step(
    diffusion: GaussianDiffusion,
    output: Tensor,
    x: Tensor,
    i: int,
    noise: Tensor | None = None,
    eta: float = 0.0,
    clip_denoised: bool = False,
) -> Tensor:
    """One DDIM step x_i -> x_{i-1} (Song et al. 2021, Eq. 12); eta = 0 is deterministic."""
    x_start = diffusion.predict_x_start(output, x, i, clip_denoised)
    ab = diffusion.alphas_cumprod[i].item()
    ab_prev = diffusion.alphas_cumprod_prev[i].item()
    eps = (x / ab**0.5 - x_start) / (1 / ab - 1) ** 0.5
    sigma = eta * ((1 - ab_prev) / (1 - ab)) ** 0.5 * (1 - ab / ab_prev) ** 0.5
    mean = ab_prev**0.5 * x_start + max(1 - ab_prev - sigma**2, 0.0) ** 0.5 * eps
    return mean if i == 0 or eta == 0 else mean + sigma * noise


def sample_ddpm(
    model: Model,
    x: Tensor,
    diffusion: GaussianDiffusion,
    noise: Noise,
    clip_denoised: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling from noise ``x`` over all timesteps of (respaced) ``diffusion``."""
    for i in reversed(range(diffusion.num_timesteps)):
        t = diffusion.timestep_map[i]
        x = ddpm_step(diffusion, model(x, t), x, i, noise(), clip_denoised)
        if callback:
            callback(i, t, x)
    return x


def sample_ddim(
    model: Model,
    x: Tensor,
    diffusion: GaussianDiffusion,
    noise: Noise,
    eta: float = 0.0,
    clip_denoised: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM sampling from noise ``x`` over all timesteps of (respaced) ``diffusion``."""
    for i in reversed(range(diffusion.num_timesteps)):
        t = diffusion.timestep_map[i]
        fresh = noise() if eta else None
        x = ddim_step(diffusion, model(x, t), x, i, fresh, eta, clip_denoised)
        if callback:
            callback(i, t, x)
    return x


def sample_euler(
    model: Model,
    x: Tensor,
    num_steps: int,
    num_timesteps: int = 1000,
    callback: Callback | None = None,
) -> Tensor:
    """Euler steps along a rectified flow from s = 1 (noise) to s = 0; order 1."""
    for i in range(num_steps, 0, -1):
        s, s_next = i / num_steps, (i - 1) / num_steps
        x = x + (s_next - s) * model(x, s * num_timesteps)
        if callback:
            callback(i - 1, s * num_timesteps, x)
    return x


def sample_heun(
    model: Model,
    x: Tensor,
    num_steps: int,
    num_timesteps: int = 1000,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's steps along a rectified flow from s = 1 to s = 0; order 2, two calls a step."""
    for i in range(num_steps, 0, -1):
        s, s_next = i / num_steps, (i - 1) / num_steps
        slope = model(x, s * num_timesteps)
        predicted = x + (s_next - s) * slope
        slope_next = model(predicted, s_next * num_timesteps)
        x = x + (s_next - s) * (slope + slope_next) / 2
        if callback:
            callback(i - 1, s * num_timesteps, x)
    return x


def check_steps(num_steps: int, most: int | None = None) -> int:
    """A number of sampler steps as an int, or ValueError; ``most`` is the T of training."""
    if int(num_steps) != num_steps or num_steps < 1 or (most is not None and num_steps > most):
        accepted = 'at least 1' if most is None else f'1 to {most}'
        raise ValueError(f'num_steps must be a whole number, {accepted}, got {num_steps}.')
    return int(num_steps)


class _GaussianSampler:
    """What DDPM and DDIM share: a respacing of the trained process."""

    spacing_prefix = ''

    def __init__(
        self, num_steps: int = 250, respacing: str | None = None, clip_denoised: bool = False
    ) -> None:
        self.num_steps = check_steps(num_steps)
        self.respacing = f'{self.spacing_prefix}{num_steps}' if respacing is None else respacing
        self.clip_denoised = clip_denoised

    def process(self, diffusion: GaussianDiffusion) -> GaussianDiffusion:
        if not isinstance(diffusion, GaussianDiffusion):
            raise ValueError(
                f'{type(self).__name__} samples a GaussianDiffusion, got '
                f'{type(diffusion).__name__}: use EulerSampler or HeunSampler for flows.'
            )
        check_steps(self.num_steps, diffusion.num_train_timesteps)
        return diffusion.respaced(self.respacing)

    def timesteps(self, diffusion: GaussianDiffusion) -> list[float]:
        """Original timestep of every network call, in the order of sampling."""
        return [float(t) for t in reversed(self.process(diffusion).timestep_map)]


@TASK_UTILS.register_module()
class DDPMSampler(_GaussianSampler):
    """Ancestral sampling.

    Args:
        num_steps: 1 to T.
        respacing: a spec of ``space_timesteps``; by default ``str(num_steps)``.
        clip_denoised: clamp the predicted clean image to [-1, 1]: for pixels, not for latents.
    """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        diffusion: GaussianDiffusion,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor:
        return sample_ddpm(model, x, self.process(diffusion), noise, self.clip_denoised, callback)


@TASK_UTILS.register_module()
class DDIMSampler(_GaussianSampler):
    """DDIM.

    Args:
        num_steps: 1 to T.
        eta: 0 is deterministic, 1 has the variance of DDPM.
        respacing: by default ``'ddim{num_steps}'``, a whole stride.
        clip_denoised: as for DDPM.
    """

    spacing_prefix = 'ddim'

    def __init__(
        self,
        num_steps: int = 25,
        eta: float = 0.0,
        respacing: str | None = None,
        clip_denoised: bool = False,
    ) -> None:
        super().__init__(num_steps, respacing, clip_denoised)
        if eta < 0:
            raise ValueError(f'eta must be at least 0 (0 is deterministic), got {eta}.')
        self.eta = eta

    def __call__(
        self,
        model: Model,
        x: Tensor,
        diffusion: GaussianDiffusion,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor:
        return sample_ddim(
            model, x, self.process(diffusion), noise, self.eta, self.clip_denoised, callback
        )


class _FlowSampler:
    """What Euler and Heun share: a number of equal steps of a rectified flow."""

    solver: Callable

    def __init__(self, num_steps: int = 5) -> None:
        self.num_steps = check_steps(num_steps)

    def _check(self, diffusion: RectifiedFlow) -> None:
        if not isinstance(diffusion, RectifiedFlow):
            raise ValueError(
                f'{type(self).__name__} samples a RectifiedFlow, got {type(diffusion).__name__}: '
                'use DDPMSampler, DDIMSampler or DiffusersSampler for Gaussian diffusion.'
            )

    def timesteps(self, diffusion: RectifiedFlow) -> list[float]:
        """Timestep s * T of every network call, in the order of sampling."""
        self._check(diffusion)
        visited: list[float] = []

        def record(x: Tensor, t: float) -> Tensor:
            visited.append(t)
            return x

        type(self).solver(record, torch.zeros(1), self.num_steps, diffusion.num_train_timesteps)
        return visited

    def __call__(
        self,
        model: Model,
        x: Tensor,
        diffusion: RectifiedFlow,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor:
        self._check(diffusion)
        return type(self).solver(model, x, self.num_steps, diffusion.num_train_timesteps, callback)


@TASK_UTILS.register_module()
class EulerSampler(_FlowSampler):
    """Euler's method: num_steps network calls."""

    solver = staticmethod(sample_euler)


@TASK_UTILS.register_module()
class HeunSampler(_FlowSampler):
    """Heun's method: two network calls a step."""

    solver = staticmethod(sample_heun)

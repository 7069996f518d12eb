"""Gaussian diffusion with learned-range variance (Ho et al. 2020; Nichol and Dhariwal 2021).

Exactly DiT's process: linear betas, eps prediction, MSE + VLB. x_t = sqrt(ab_t) x_0 +
sqrt(1 - ab_t) eps, ab the cumulated alphas. Schedules are kept in float64 and cast to the dtype
of the data where they are used.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmsparsedit.registry import TASK_UTILS

from .respacing import space_timesteps


@dataclass(frozen=True)
class Posterior:
    """p(x_{t-1} | x_t) as predicted, and the clean image it rests on; all shaped like x_t."""

    mean: Tensor
    log_variance: Tensor
    x_start: Tensor

    @property
    def variance(self) -> Tensor:
        return self.log_variance.exp()


@TASK_UTILS.register_module()
class GaussianDiffusion:
    """Discrete-time Gaussian diffusion.

    Args:
        num_timesteps: T of training.
        beta_start, beta_end: ends of the linear schedule at T = 1000; scaled by 1000 / T.
        learn_sigma: the network's output carries, after eps, the interpolation of log variance
            between its two bounds; else the variance is fixed to beta (DiT's default).
        channel_dim: axis of channels, 1 for images (B, C, H, W), 2 for video (B, F, C, H, W).
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        learn_sigma: bool = True,
        channel_dim: int = 1,
    ) -> None:
        if num_timesteps < 1:
            raise ValueError(f'num_timesteps must be at least 1, got {num_timesteps}.')
        scale = 1000 / num_timesteps
        if not 0 < scale * beta_start <= scale * beta_end < 1:
            raise ValueError(
                f'beta_start {beta_start} and beta_end {beta_end}, scaled by 1000 / T = {scale}, '
                'must rise inside (0, 1).'
            )
        self.learn_sigma = learn_sigma
        self.channel_dim = channel_dim
        self.num_train_timesteps = int(num_timesteps)
        betas = torch.linspace(
            scale * beta_start, scale * beta_end, num_timesteps, dtype=torch.float64, device='cpu'
        )
        self._set_schedule(torch.cumprod(1 - betas, 0), list(range(num_timesteps)), betas)

    def respaced(self, spec: str) -> 'GaussianDiffusion':
        """The same process on fewer timesteps (``space_timesteps``).

        Index i of the respaced process stands for original timestep ``timestep_map[i]``, which is
        what the network must be given.
        """
        other = copy.copy(self)
        kept = space_timesteps(self.num_train_timesteps, spec)
        other._set_schedule(self.alphas_cumprod[kept], kept)
        return other

    def _set_schedule(
        self, alphas_cumprod: Tensor, timestep_map: list[int], betas: Tensor | None = None
    ) -> None:
        previous = torch.cat(
            [torch.ones(1, dtype=torch.float64, device='cpu'), alphas_cumprod[:-1]]
        )
        if betas is None:
            betas = 1 - alphas_cumprod / previous
        self.timestep_map = timestep_map
        self.betas = betas
        self.alphas_cumprod = alphas_cumprod
        self.alphas_cumprod_prev = previous
        self.posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
        # zero at t = 0: the log takes the next entry there, as the reference does
        self.posterior_log_variance_clipped = torch.log(
            torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]])
            if len(timestep_map) > 1
            else betas
        )
        self.posterior_mean_coef1 = betas * previous.sqrt() / (1 - alphas_cumprod)
        self.posterior_mean_coef2 = (1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod)
        self._on_device: dict = {}

    @property
    def num_timesteps(self) -> int:
        """Number of timesteps of this process, fewer than trained when respaced."""
        return len(self.timestep_map)

    # -- training -------------------------------------------------------------------------------

    def time_quantile(self, u: float) -> float:
        """Share of T below which a share u of training timesteps lies: t is uniform."""
        return u

    def sample_timesteps(self, u: Tensor, t_start: int, t_end: int) -> Tensor:
        """Uniform numbers (B,) in [0, 1) -> timesteps (B,), uniform on t_start ... t_end - 1."""
        t = (t_start + u.double() * (t_end - t_start)).long()
        return t.clamp(max=t_end - 1)

    def add_noise(self, x_start: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """q(x_t | x_0): clean data and standard normal noise -> x_t, all of one shape."""
        ab = self._at('alphas_cumprod', t, x_start, lambda ab: ab.sqrt())
        one_minus = self._at('alphas_cumprod', t, x_start, lambda ab: (1 - ab).sqrt())
        return ab * x_start + one_minus * noise

    def training_losses(
        self, output: Tensor, x_start: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms per sample (B,): ``mse`` on eps, ``vb`` in bits where sigma is learned.

        The variance is trained by the variational bound alone: eps is detached in it. The bound
        is not rescaled (DiT's loss type MSE).
        """
        eps, variance = self._split(output, x_start)
        mse = _mean_flat((noise - eps) ** 2)
        if not self.learn_sigma:
            return dict(loss=mse, mse=mse)
        frozen = torch.cat([eps.detach(), variance], dim=self.channel_dim)
        vb = self.variational_bound(frozen, x_start, x_t, t)
        return dict(loss=mse + vb, mse=mse, vb=vb)

    def variational_bound(self, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """KL of the predicted to the true posterior, or at t = 0 the decoder's NLL; bits, (B,)."""
        true_mean, true_log_variance = self.q_posterior(x_start, x_t, t)
        p = self.p_mean_variance(output, x_t, t, clip_denoised=False)
        kl = _mean_flat(_normal_kl(true_mean, true_log_variance, p.mean, p.log_variance))
        nll = -_mean_flat(_discretized_log_likelihood(x_start, p.mean, 0.5 * p.log_variance))
        return torch.where(t == 0, nll, kl) / math.log(2)

    # -- posteriors -----------------------------------------------------------------------------

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clipped log variance of q(x_{t-1} | x_t, x_0)."""
        log_variance = self._at('posterior_log_variance_clipped', t, x_t)
        return self._posterior_mean(x_start, x_t, t), log_variance.expand_as(x_t)

    def _posterior_mean(self, x_start: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
        coef1 = self._at('posterior_mean_coef1', t, x_t)
        coef2 = self._at('posterior_mean_coef2', t, x_t)
        return coef1 * x_start + coef2 * x_t

    def p_mean_variance(
        self, output: Tensor, x: Tensor, t: Tensor | int, clip_denoised: bool = False
    ) -> Posterior:
        """The network's ``output`` for ``x`` at index t of this process -> p(x_{t-1} | x_t).

        Args:
            output: eps, then the variance channels where learned.
            t: index or indexes (B,) in this (perhaps respaced) process.
            clip_denoised: clamp the predicted x_0 to [-1, 1].
        """
        _, variance = self._split(output, x)
        if self.learn_sigma:
            low = self._at('posterior_log_variance_clipped', t, x)
            high = self._at('betas', t, x, torch.log)
            share = (variance + 1) / 2
            log_variance = share * high + (1 - share) * low
        else:
            log_variance = torch.zeros_like(x) + self._at('fixed_log_variance', t, x)
        x_start = self.predict_x_start(output, x, t, clip_denoised)
        return Posterior(self._posterior_mean(x_start, x, t), log_variance, x_start)

    def predict_x_start(
        self, output: Tensor, x: Tensor, t: Tensor | int, clip_denoised: bool = False
    ) -> Tensor:
        """The clean image that the network's ``output`` for ``x`` at index t stands for."""
        eps, _ = self._split(output, x)
        recip = self._at('alphas_cumprod', t, x, lambda ab: (1 / ab).sqrt())
        recip_minus = self._at('alphas_cumprod', t, x, lambda ab: (1 / ab - 1).sqrt())
        x_start = recip * x - recip_minus * eps
        return x_start.clamp(-1, 1) if clip_denoised else x_start

    @property
    def fixed_log_variance(self) -> Tensor:
        """Log of beta_t, at t = 0 of the posterior's next variance (DiT's FIXED_LARGE)."""
        return torch.log(torch.cat([self.posterior_variance[1:2], self.betas[1:]]))

    def _split(self, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Network output -> eps, variance channels (empty where sigma is not learned)."""
        channels = x.shape[self.channel_dim]
        expected = channels * 2 if self.learn_sigma else channels
        if output.shape[self.channel_dim] != expected:
            raise ValueError(
                f'network output has {output.shape[self.channel_dim]} channels for data of '
                f'{channels}: expected {expected} with learn_sigma={self.learn_sigma}. Set '
                'learn_sigma of network and diffusion alike.'
            )
        eps, variance = output.split([channels, expected - channels], dim=self.channel_dim)
        return eps, variance

    def _at(self, name: str, t: Tensor | int, like: Tensor, function=None) -> Tensor | float:
        """Entries t of a float64 table, broadcastable to ``like`` and in its dtype.

        An int t reads the table on the host and gives a number: no kernel, no transfer to the
        device, no synchronisation. The kernels that use it round it to the dtype of their tensor.
        """
        if isinstance(t, int):
            value = getattr(self, name)[t]
            return (value if function is None else function(value)).item()
        key = (name, t.device)
        if key not in self._on_device:
            self._on_device[key] = getattr(self, name).to(t.device)
        value = self._on_device[key][t]
        value = value if function is None else function(value)
        return value.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _mean_flat(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _normal_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N1 || N2) in nats, elementwise."""
    return 0.5 * (
        -1.0
        + log_var2
        - log_var1
        + (log_var1 - log_var2).exp()
        + (mean1 - mean2) ** 2 * (-log_var2).exp()
    )


def _standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation that the reference uses."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood in nats of x, uint8 rescaled to [-1, 1], in 256 bins of a Gaussian."""
    inverse = (-log_scale).exp()
    cdf_high = _standard_normal_cdf(inverse * (x - mean + 1 / 255))
    cdf_low = _standard_normal_cdf(inverse * (x - mean - 1 / 255))
    probability = torch.where(
        x < -0.999, cdf_high, torch.where(x > 0.999, 1 - cdf_low, cdf_high - cdf_low)
    )
    return probability.clamp(min=1e-12).log()

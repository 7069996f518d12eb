"""Rectified flow (Liu et al. 2022): x_s = (1 - s) x_0 + s noise, the network predicts noise - x_0.

s in [0, 1] is time towards noise. The network and the prune schedule are given t = s * T, so that
one schedule serves Gaussian diffusion and flows.
"""

import math

import torch
from torch import Tensor

from mmsparsedit.registry import TASK_UTILS

TIME_DISTRIBUTIONS = ('uniform', 'logit_normal')


@TASK_UTILS.register_module()
class RectifiedFlow:
    """Straight paths between data and noise.

    Args:
        num_timesteps: T, the scale of the time that the network sees.
        time_distribution: of s in training: ``'uniform'``, or ``'logit_normal'`` (Esser et al.
            2024), the sigmoid of a normal variable.
        logit_mean, logit_std: of that normal variable.
        channel_dim: axis of channels, 1 for images, 2 for video.
    """

    learn_sigma = False

    def __init__(
        self,
        num_timesteps: int = 1000,
        time_distribution: str = 'uniform',
        logit_mean: float = 0.0,
        logit_std: float = 1.0,
        channel_dim: int = 1,
    ) -> None:
        if time_distribution not in TIME_DISTRIBUTIONS:
            raise ValueError(
                f'time_distribution must be one of {TIME_DISTRIBUTIONS}, got {time_distribution!r}.'
            )
        if logit_std <= 0:
            raise ValueError(f'logit_std must be positive, got {logit_std}.')
        self.num_train_timesteps = int(num_timesteps)
        self.time_distribution = time_distribution
        self.logit_mean = logit_mean
        self.logit_std = logit_std
        self.channel_dim = channel_dim

    def time_quantile(self, u: float) -> float:
        """Share of T below which a share u of training times lies."""
        return self._quantile(torch.tensor(u, dtype=torch.float64)).item()

    def time_cdf(self, s: float) -> float:
        """Share of training times below s in [0, 1]."""
        if self.time_distribution == 'uniform' or s in (0, 1):
            return float(s)
        z = (math.log(s / (1 - s)) - self.logit_mean) / self.logit_std
        return 0.5 * (1 + math.erf(z / math.sqrt(2)))

    def _quantile(self, u: Tensor) -> Tensor:
        if self.time_distribution == 'uniform':
            return u
        u = u.clamp(1e-9, 1 - 1e-9)
        return torch.sigmoid(self.logit_mean + self.logit_std * torch.special.ndtri(u))

    def sample_timesteps(self, u: Tensor, t_start: int, t_end: int) -> Tensor:
        """Uniform numbers (B,) -> t = s * T (B,), s as distributed, within [t_start, t_end)."""
        T = self.num_train_timesteps
        low, high = self.time_cdf(t_start / T), self.time_cdf(t_end / T)
        s = self._quantile(low + u.double() * (high - low))
        return (s * T).float().clamp(t_start, math.nextafter(t_end, 0))

    def add_noise(self, x_start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        s = (t / self.num_train_timesteps).to(x_start.dtype).view(-1, *[1] * (x_start.ndim - 1))
        return (1 - s) * x_start + s * noise

    def training_losses(
        self, output: Tensor, x_start: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> dict[str, Tensor]:
        """Squared error of the velocity per sample (B,)."""
        if output.shape != x_start.shape:
            raise ValueError(
                f'network output {tuple(output.shape)} for data {tuple(x_start.shape)}: a '
                'rectified flow predicts one velocity per value; build the network with '
                'learn_sigma=False.'
            )
        mse = ((noise - x_start - output) ** 2).flatten(1).mean(dim=1)
        return dict(loss=mse, mse=mse)

"""Classifier-free guidance (Ho and Salimans 2022), with the reference's choice of channels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """How a conditional and an unconditional prediction are combined.

    Args:
        scale: 1 is off; u + scale * (c - u).
        channels: how many leading output channels are guided. 3 reproduces DiT and PixArt, which
            leave the fourth latent channel and the variance as the condition alone predicts them
            (a known accident of the reference); None guides all predicted channels (Latte), the
            variance never.
        interval: guide only at timesteps in [low, high) of training time (Kynkaanniemi et al.
            2024); None guides everywhere. It changes the protocol of published tables.
    """

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f'cfg_scale must be a finite number, got {self.scale}; 1 is off.')
        if self.channels is not None and self.channels < 1:
            raise ValueError(
                f'cfg_channels must be at least 1 or None for all, got {self.channels}.'
            )
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(
                f'guidance interval {self.interval}: expected (low, high) with 0 <= low < high, in '
                'training timesteps.'
            )

    def active_at(self, t: float) -> bool:
        if self.scale == 1.0:
            return False
        return self.interval is None or self.interval[0] <= t < self.interval[1]

    def combine(
        self, conditional: Tensor, unconditional: Tensor, data_channels: int, channel_dim: int = 1
    ) -> Tensor:
        """Two network outputs (B, C_out, ...) -> the guided one.

        Args:
            data_channels: channels of the data, the ones of an output that may be guided.
        """
        guided = data_channels if self.channels is None else self.channels
        if guided > data_channels:
            raise ValueError(
                f'cfg_channels {guided} exceeds the {data_channels} predicted channels: use 1 to '
                f'{data_channels}, or None for all.'
            )
        rest = conditional.shape[channel_dim] - guided
        c, kept = conditional.split([guided, rest], dim=channel_dim)
        u = unconditional.narrow(channel_dim, 0, guided)
        return torch.cat([u + self.scale * (c - u), kept], dim=channel_dim)

"""Embedders of patches, timesteps and labels, and fixed sine-cosine position tables."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sincos_pos_embed_1d(dim: int, positions: np.ndarray) -> np.ndarray:
    """Sine-cosine embedding of positions (N,) -> (N, dim) float64, sines first (DiT)."""
    if dim % 2:
        raise ValueError(f'a sine-cosine embedding needs an even width, got {dim}.')
    frequencies = 10000.0 ** (-np.arange(dim // 2, dtype=np.float64) / (dim / 2))
    angles = np.outer(positions.reshape(-1).astype(np.float64), frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_pos_embed_2d(
    dim: int, grid: tuple[int, int], scale: float | tuple[float, float] = 1.0
) -> Tensor:
    """Position table of a token grid (h, w) -> (1, h * w, dim) float32, row-major.

    As in DiT the first half of the width embeds the column and the second half the row; computed
    in float64.

    Args:
        scale: positions are divided by it, per axis (h, w) or for both: 1 is DiT; PixArt
            interpolates positions with it at higher resolutions.
    """
    scale_h, scale_w = scale if isinstance(scale, tuple) else (scale, scale)
    rows, columns = np.meshgrid(
        np.arange(grid[0]) / scale_h, np.arange(grid[1]) / scale_w, indexing='ij'
    )
    table = np.concatenate(
        [sincos_pos_embed_1d(dim // 2, columns), sincos_pos_embed_1d(dim // 2, rows)], axis=1
    )
    return torch.from_numpy(table).float().unsqueeze(0)


class PatchEmbed(nn.Module):
    """Latent (B, C_in, H, W) -> tokens (B, N, C), row-major.

    DiT's strided convolution, whose weight ``proj`` keeps its shape [C, C_in, p, p]; the patches
    do not overlap, so it is computed as one linear map of patches.
    """

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.proj, nn.Conv2d):  # wrapped (LoRA): only a call is the whole map
            return self.proj(x).flatten(2).transpose(1, 2)
        p = self.proj.stride[0]
        patches = x.unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # (B, C_in, h, p, w, p)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, C_in p p)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)  # (B, N, C)


class TimestepEmbedder(nn.Module):
    """Timesteps (B,), fractions allowed -> (B, C): sinusoid with cosines first, then an MLP.

    Frequency k of F is 10000^(-k / (F - ``frequency_shift``)): 0 is DiT's, 1 diffusers' DiT's.
    """

    frequency_shift = 0

    def __init__(self, hidden_size: int, frequency_dim: int = 256) -> None:
        super().__init__()
        self.frequency_dim = frequency_dim
        self.mlp = nn.Sequential(
            nn.Linear(frequency_dim, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        half = self.frequency_dim // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device)
        exponents = exponents / (half - self.frequency_shift)
        angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * exponents)
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(sinusoid.to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """Labels (B,) -> (B, C). With ``null_label`` a last row stands for "no label", for guidance.

    Labels are dropped by whoever trains (``DiffusionGenerator``), not here: a network's output
    depends on its inputs alone.
    """

    def __init__(self, num_classes: int, hidden_size: int, null_label: bool = True) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + int(null_label), hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)

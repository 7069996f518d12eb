"""Fewer tokens, more tokens: pooling and upsampling on a token grid (h, w) or (f, h, w).

B batch, N tokens of the fine grid, M tokens of the coarse grid, C width; tokens are row-major.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, ...]

_ADAPTIVE_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_LINEAR_MODE = {1: 'linear', 2: 'bilinear', 3: 'trilinear'}
UPSAMPLE_MODES = ('nearest', 'bilinear')


def check_grid(grid: Sequence[int], dense_grid: Sequence[int]) -> Grid:
    """Return ``grid`` as a tuple, or raise ValueError if it does not fit in ``dense_grid``.

    A grid of zeros has no tokens: nothing passes through the middle.
    """
    grid, dense_grid = tuple(grid), tuple(dense_grid)
    if len(grid) != len(dense_grid):
        raise ValueError(
            f'token grid {grid} has {len(grid)} axes, but the dense grid {dense_grid} has '
            f'{len(dense_grid)}: give one length per axis.'
        )
    if any(g < 1 or g != int(g) for g in grid) and any(grid):
        raise ValueError(
            f'token grid {grid}: every side must be a whole number of at least 1, or all zero for '
            'no sparse tokens.'
        )
    if any(g > d for g, d in zip(grid, dense_grid, strict=True)):
        raise ValueError(
            f'token grid {grid} exceeds the dense grid {dense_grid}: the pruning rate would be '
            'negative. Lower the grid, or raise r_min of the prune schedule.'
        )
    return grid


def pool_tokens(x: Tensor, dense_grid: Grid, grid: Grid) -> Tensor:
    """Adaptive average pooling of tokens (B, ..., N, C) -> (B, ..., M, C) (SparseDiT, Eq. 2)."""
    if grid == dense_grid:
        return x
    maps = x.flatten(0, -3).transpose(1, 2).unflatten(-1, dense_grid)  # (B', C, *dense_grid)
    pooled = _ADAPTIVE_POOL[len(grid)](maps, grid).flatten(2).transpose(1, 2)
    return pooled.unflatten(0, x.shape[:-2])


def upsample_tokens(x: Tensor, grid: Grid, dense_grid: Grid, mode: str = 'nearest') -> Tensor:
    """Upsample tokens (B, ..., M, C) -> (B, ..., N, C) (SparseDiT, Eq. 3); the weights sum to one.

    Args:
        mode: ``'nearest'`` as in the authors' code, or ``'bilinear'``: linear along every axis,
            half-pixel centres.
    """
    if grid == dense_grid:
        return x
    # (B', C, *grid), channels last in memory
    maps = x.flatten(0, -3).transpose(1, 2).unflatten(-1, grid)
    if mode == 'nearest':
        maps = F.interpolate(maps, dense_grid, mode='nearest')
    else:
        maps = F.interpolate(maps, dense_grid, mode=_LINEAR_MODE[len(grid)], align_corners=False)
    return maps.flatten(2).transpose(1, 2).unflatten(0, x.shape[:-2])

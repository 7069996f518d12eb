"""Clips of tokens, read along space and along time in turn (Latte; SparseDiT, App. A.3).

B clips, F frames, S = H * W positions of a frame, I single images behind the frames of each clip,
C width; f and s are the sparse numbers of frames and positions. Tokens are kept as
(B, F + I, S, C): layers in space read every frame and image by itself, layers in time read the F
frames of one position and leave the images as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmsparsedit.nn import SDTM, pool_tokens
from mmsparsedit.nn.resample import Grid
from mmsparsedit.registry import MODELS

RECOVER_ORDERS = ('temporal_first', 'spatial_first')


@dataclass(frozen=True)
class ClipCondition:
    """What conditions the layers: of clips (B, C), and of the images behind their frames.

    Args:
        clip: condition (B, C), or whatever the layers take, shared by all frames and all positions
            of a clip, so that a layer modulates once per clip.
        num_images: I.
        images: conditions (B, I, C) where images have labels of their own; None shares the clip's.
    """

    clip: Any
    num_images: int = 0
    images: Tensor | None = None

    def by_frame(self, frames: int) -> Tensor:
        """One condition per frame and image, (B, frames + I, C)."""
        clip = self.clip.unsqueeze(1).expand(-1, frames, -1)
        return torch.cat([clip, self.images], dim=1)


def over_space(layer: Callable, x: Tensor, condition: ClipCondition, *context: Tensor) -> Tensor:
    """Run a layer among the positions of each frame of (B, F + I, S, C)."""
    if condition.images is None:
        return layer(x, condition.clip, *context)
    c = condition.by_frame(x.shape[1] - condition.num_images).flatten(0, 1)  # (B (F + I), C)
    out = layer(x.flatten(0, 1), c, *(tokens.flatten(0, 1) for tokens in context))
    return out.unflatten(0, x.shape[:2])


def over_time(layer: Callable, x: Tensor, condition: ClipCondition, *context: Tensor) -> Tensor:
    """Run a layer among the frames of each position of (B, F + I, S, C); images pass by."""
    frames, images = split_images(x, condition.num_images)
    context = tuple(split_images(tokens, condition.num_images)[0] for tokens in context)
    out = layer(
        frames.transpose(1, 2), condition.clip, *(tokens.transpose(1, 2) for tokens in context)
    ).transpose(1, 2)  # (B, F, S, C)
    return join_images(out, images)


def split_images(x: Tensor, num_images: int) -> tuple[Tensor, Tensor | None]:
    """(B, F + I, S, C) -> frames (B, F, S, C) and images (B, I, S, C), None where I = 0."""
    if not num_images:
        return x, None
    frames, images = x.split([x.shape[1] - num_images, num_images], dim=1)
    return frames, images


def join_images(frames: Tensor, images: Tensor | None) -> Tensor:
    return frames if images is None else torch.cat([frames, images], dim=1)


def add_to_frames(x: Tensor, temp_embed: Tensor, num_images: int = 0) -> Tensor:
    """Add a frame table (1, F, C) to the frames of (B, F + I, S, C), nothing to the images."""
    frames, images = split_images(x, num_images)
    return join_images(frames + temp_embed.unsqueeze(2), images)


def with_images_of(x: Tensor, other: Tensor, num_images: int) -> Tensor:
    """The frames of ``x`` before the images of ``other``."""
    return join_images(split_images(x, num_images)[0], split_images(other, num_images)[1])


def pool_time(x: Tensor, num_frames: int, num_images: int = 0) -> Tensor:
    """(B, F + I, S, C) -> (B, f + I, S, C), adaptive average of the frames of each position."""
    frames, images = split_images(x, num_images)
    by_position = frames.transpose(1, 2)  # (B, S, F, C)
    pooled = pool_tokens(by_position, (frames.shape[1],), (num_frames,))
    return join_images(pooled.transpose(1, 2), images)


@MODELS.register_module()
class FactorisedSDTM(SDTM):
    """SDTM of a video model: fewer positions, fewer frames, and back (SparseDiT, App. A.3).

    Layers: generation in space, generation in time, sparse layers in space and time in turn,
    recovery in time, recovery in space; no dense layer. Each keeps its place in the alternation
    space, time, ... of the pretrained model, so that both recoveries take the weights of their own
    axis whatever the order they run in: recovery in space stands before recovery in time in
    ``layers``.

    Args:
        num_sparse: layers on the sparse tokens, an even number: the paper's 2.
        block, recovery: as of ``SDTM``.
        temporal_block: arguments of ``block`` that layers in time have otherwise.
        upsample: ``'nearest'`` or ``'bilinear'``.
        recover_order: ``'temporal_first'`` undoes the generation backwards (the reading that
            reproduces the paper's 828 G): the partner of the recovery in time are the tokens
            before the generation in time, that of the recovery in space the tokens that entered.
            ``'spatial_first'`` keeps the pretrained sequence of axes at 9 % more cost; the partner
            of its first step, (f, S) tokens that generation never had, is the mean over frames of
            the tokens that entered.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        num_sparse: int = 2,
        upsample: str = 'nearest',
        recover_order: str = 'temporal_first',
        block: dict | None = None,
        recovery: dict | None = None,
        temporal_block: dict | None = None,
    ) -> None:
        if num_sparse < 0 or num_sparse % 2:
            raise ValueError(
                f'num_sparse must be even, got {num_sparse}: layers in space and in time alternate.'
            )
        if recover_order not in RECOVER_ORDERS:
            raise ValueError(
                f'recover_order must be one of {RECOVER_ORDERS}, got {recover_order!r}.'
            )
        # of each pair the first works in space, the second in time
        counts = (2, num_sparse, 2, 0)
        super().__init__(hidden_size, num_heads, mlp_ratio, counts, upsample, block, recovery)
        self.recover_order = recover_order
        if temporal_block:
            shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
            in_time = {'type': 'TransformerBlock', **shape, **(block or {}), **temporal_block}
            for layers in (self.generation, self.sparse):
                for i in range(1, len(layers), 2):
                    layers[i] = MODELS.build(in_time)
            self.recovery[1].block = MODELS.build(in_time)

    def forward(
        self,
        x: Tensor,
        c: ClipCondition,
        *,
        grid: Grid,
        dense_grid: Grid,
        pos_embed: Tensor | None = None,
        temp_embed: Tensor | None = None,
    ) -> Tensor:
        """Dense tokens (B, F + I, S, C) in and out.

        Args:
            grid, dense_grid: (f, h, w) and (F, H, W); images keep their number.
            pos_embed: (1, S, C) added to what the recovery in space merged, None for nothing.
            temp_embed: (1, F, C) added to what the recovery in time merged, None for nothing.
        """
        frames, num_images = grid[0], c.num_images
        in_space, in_time = self.generation
        recover_space = partial(
            self.recovery[0], grid=grid[1:], dense_grid=dense_grid[1:], pos_embed=pos_embed
        )
        recover_time = partial(
            self.recovery[1], grid=grid[:1], dense_grid=dense_grid[:1], pos_embed=temp_embed
        )
        # Eq. 2 in space, then in time
        pruned = self.pool(x, dense_grid[1:], grid[1:])
        pruned = over_space(in_space, pruned, c, x)  # (B, F + I, s, C)
        sparse = pool_time(pruned, frames, num_images)
        sparse = over_time(in_time, sparse, c, pruned)  # (B, f + I, s, C)
        for i, block in enumerate(self.sparse):
            sparse = (over_time if i % 2 else over_space)(block, sparse, c)
        # Eq. 3 and 4: the images of a recovery in time are those of the sparse tokens
        if self.recover_order == 'temporal_first':
            partner = with_images_of(pruned, sparse, num_images)
            sparse = over_time(recover_time, partner, c, sparse)  # (B, F + I, s, C)
            return over_space(recover_space, x, c, sparse)
        partner = pool_time(x, frames, num_images)
        sparse = over_space(recover_space, partner, c, sparse)  # (B, f + I, S, C)
        return over_time(recover_time, with_images_of(x, sparse, num_images), c, sparse)

"""Clips of tokens, read along space and along time in turn (Latte; SparseDiT, App. A.3).

B clips, F frames, S = H * W positions of a frame, I single images behind the frames of each clip,
C width; f and s are the sparse numbers of frames and positions. Tokens are kept as
(B, F + I, S, C): layers in space read every frame and image by itself, layers in time read the F
frames of one position and leave the images as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .blocks import TransformerBlock
from .resample import Grid, pool_tokens
from .sdtm import TokenRecoveryBlock

RECOVER_ORDERS = ('temporal_first', 'spatial_first')


@dataclass(frozen=True)
class ClipCondition:
    """What the layers are told of clips (B, C), and of the images behind their frames.

    Args:
        clip: condition (B, C), shared by all frames and all positions of a clip, so that a layer
            modulates once per clip.
        num_images: I.
        images: conditions (B, I, C) where images have labels of their own; None shares the clip's.
    """

    clip: Tensor
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


def pool_space(x: Tensor, dense_grid: Grid, grid: Grid) -> Tensor:
    """(B, F + I, S, C) -> (B, F + I, s, C), the grids being (H, W) and (h, w)."""
    return pool_tokens(x.flatten(0, 1), dense_grid, grid).unflatten(0, x.shape[:2])


def pool_time(x: Tensor, num_frames: int, num_images: int = 0) -> Tensor:
    """(B, F + I, S, C) -> (B, f + I, S, C), adaptive average of the frames of each position."""
    frames, images = split_images(x, num_images)
    by_position = frames.transpose(1, 2)  # (B, S, F, C)
    pooled = pool_tokens(by_position.flatten(0, 1), (frames.shape[1],), (num_frames,))
    return join_images(pooled.unflatten(0, by_position.shape[:2]).transpose(1, 2), images)


def check_recover_order(recover_order: str) -> str:
    if recover_order not in RECOVER_ORDERS:
        raise ValueError(f'recover_order must be one of {RECOVER_ORDERS}, got {recover_order!r}.')
    return recover_order


@MODELS.register_module()
class FactorisedSDTM(nn.Module):
    """SDTM of a video model: fewer positions, fewer frames, and back (SparseDiT, App. A.3).

    Layers: generation in space, generation in time, sparse layers in space and time in turn,
    recovery in time, recovery in space; no dense layer. Each keeps its place in the alternation
    space, time, ... of the pretrained model, so that both recoveries take the weights of their own
    axis whatever the order they run in: recovery in space stands before recovery in time in
    ``layers``.

    Args:
        num_sparse: layers on the sparse tokens, an even number: the paper's 2.
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
    ) -> None:
        super().__init__()
        if num_sparse < 0 or num_sparse % 2:
            raise ValueError(
                f'num_sparse must be even, got {num_sparse}: layers in space and in time alternate.'
            )
        shape = (hidden_size, num_heads, mlp_ratio)
        self.recover_order = check_recover_order(recover_order)
        # of each pair the first works in space, the second in time
        self.generation = nn.ModuleList(TransformerBlock(*shape) for _ in range(2))
        self.sparse = nn.ModuleList(TransformerBlock(*shape) for _ in range(num_sparse))
        self.recovery = nn.ModuleList(TokenRecoveryBlock(*shape, upsample) for _ in range(2))

    def forward(
        self,
        x: Tensor,
        condition: ClipCondition,
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
        (frames, *space), (_, *dense_space) = grid, dense_grid
        num_images = condition.num_images
        in_space, in_time = self.generation
        pruned = pool_space(x, tuple(dense_space), tuple(space))
        pruned = over_space(in_space, pruned, condition, x)  # (B, F + I, s, C)
        sparse = pool_time(pruned, frames, num_images)
        sparse = over_time(in_time, sparse, condition, pruned)  # (B, f + I, s, C)
        for i, block in enumerate(self.sparse):
            sparse = (over_time if i % 2 else over_space)(block, sparse, condition)
        if self.recover_order == 'temporal_first':
            sparse = self.recover_time(pruned, sparse, condition, temp_embed)  # (B, F + I, s, C)
            return self.recover_space(x, sparse, condition, space, dense_space, pos_embed)
        partner = pool_time(x, frames, num_images)
        sparse = self.recover_space(partner, sparse, condition, space, dense_space, pos_embed)
        return self.recover_time(x, sparse, condition, temp_embed)

    def recover_space(
        self,
        x: Tensor,
        sparse: Tensor,
        condition: ClipCondition,
        space: Grid,
        dense_space: Grid,
        pos_embed: Tensor | None = None,
    ) -> Tensor:
        """Eq. 3 and 4 in each frame: ``x`` (B, F + I, S, C), ``sparse`` (B, F + I, s, C)."""
        block = self.recovery[0]
        merged = block.merge(
            x.flatten(0, 1), sparse.flatten(0, 1), tuple(space), tuple(dense_space)
        ).unflatten(0, x.shape[:2])
        if pos_embed is not None:
            merged = merged + pos_embed
        return over_space(block, merged, condition, sparse)

    def recover_time(
        self,
        x: Tensor,
        sparse: Tensor,
        condition: ClipCondition,
        temp_embed: Tensor | None = None,
    ) -> Tensor:
        """Eq. 3 and 4 at each position: ``x`` (B, F + I, s, C), ``sparse`` (B, f + I, s, C)."""
        block = self.recovery[1]
        frames, _ = split_images(x, condition.num_images)
        sparse_frames, images = split_images(sparse, condition.num_images)
        by_position = frames.transpose(1, 2)  # (B, s, F, C)
        merged = block.merge(
            by_position.flatten(0, 1),
            sparse_frames.transpose(1, 2).flatten(0, 1),
            (sparse_frames.shape[1],),
            (frames.shape[1],),
        ).unflatten(0, by_position.shape[:2])
        if temp_embed is not None:
            merged = merged + temp_embed
        merged = join_images(merged.transpose(1, 2), images)
        return over_time(block, merged, condition, sparse)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers in the order of the pretrained model, as (name, block)."""
        for group in ('generation', 'sparse', 'recovery'):
            for i, block in enumerate(getattr(self, group)):
                yield f'{group}.{i}', block

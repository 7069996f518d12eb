"""SDTM, the sparse-dense token module (SparseDiT, Sec. 3.3, Eq. 2-4).

B batch, N dense tokens, M sparse tokens, C width.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .resample import UPSAMPLE_MODES, Grid, pool_tokens, upsample_tokens


@MODELS.register_module()
class TokenRecovery(nn.Module):
    """Dense token recovery: merge sparse into dense tokens (Eq. 3), then attend to them (Eq. 4).

    ``merge_sparse`` is W1 and starts at zero, ``merge_dense`` is W2 and starts at the identity,
    biases at zero: an untrained merge returns the dense tokens exactly. W1 acts per token and the
    weights of upsampling sum to one, so it is applied to the M sparse tokens and the result is
    upsampled: the same numbers at M / N of the cost.

    Args:
        block: of Eq. 4, called as ``block(x, c, context=sparse)``.
        upsample: ``'nearest'`` (the authors' code) or ``'bilinear'``.
    """

    def __init__(self, hidden_size: int, block: dict, upsample: str = 'nearest') -> None:
        super().__init__()
        if upsample not in UPSAMPLE_MODES:
            raise ValueError(f'upsample must be one of {UPSAMPLE_MODES}, got {upsample!r}.')
        self.upsample = upsample
        self.block = MODELS.build(block)
        self.merge_sparse = nn.Linear(hidden_size, hidden_size)
        self.merge_dense = nn.Linear(hidden_size, hidden_size)
        self.init_merge()

    def init_weights(self) -> None:
        self.init_merge()
        self.block.init_weights()

    @torch.no_grad()
    def init_merge(self) -> None:
        """W1 = 0, W2 = I, biases 0 (paper, Sec. 3.3)."""
        self.merge_sparse.weight.zero_()
        self.merge_sparse.bias.zero_()
        self.merge_dense.weight.zero_().fill_diagonal_(1)
        self.merge_dense.bias.zero_()

    def merge(self, x: Tensor, sparse: Tensor, grid: Grid, dense_grid: Grid) -> Tensor:
        """Eq. 3, X_merged = W1 UpSample(X_s) + W2 X: ``x`` (B, ..., N, C), ``sparse`` likewise.

        Of the dtype of ``x``. Under autocast float32 tokens pass exactly, as X + (W2 - I) X: the
        product alone is rounded.
        """
        upsampled = self.spread(self.merge_sparse(sparse), grid, dense_grid)  # (B, ..., N, C)
        # the meta device has no autocast; a wrapped W2 (LoRA) is only called
        lowered = x.device.type != 'meta' and torch.is_autocast_enabled(x.device.type)
        if lowered and x.dtype == torch.float32 and isinstance(self.merge_dense, nn.Linear):
            weight = self.merge_dense.weight
            change = weight - torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            return x + (F.linear(x, change, self.merge_dense.bias).float() + upsampled)
        return upsampled.to(x.dtype) + self.merge_dense(x).to(x.dtype)

    def spread(self, sparse: Tensor, grid: Grid, dense_grid: Grid) -> Tensor:
        """``UpSample`` of Eq. 3."""
        return upsample_tokens(sparse, grid, dense_grid, self.upsample)

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        sparse: Tensor,
        *,
        grid: Grid,
        dense_grid: Grid,
        pos_embed: Tensor | None = None,
    ) -> Tensor:
        """Dense tokens ``x`` (B, ..., N, C) and ``sparse`` (B, ..., M, C) -> (B, ..., N, C).

        ``pos_embed`` (1, N, C), when given, is added to the merged tokens (paper, Sec. 4.1).
        """
        x = self.merge(x, sparse, grid, dense_grid)
        if pos_embed is not None:
            x = x + pos_embed
        return self.block(x, c, context=sparse)  # Eq. 4: X_merged + MHA(X_merged, X_s)


@MODELS.register_module()
class SDTM(nn.Module):
    """Sparse-dense token module: pool to M tokens, work on them, return to N tokens.

    Args:
        block_counts: layers for (generation, sparse, recovery, dense); the paper uses (1, 3, 1, 1)
            for DiT-XL and (1, 2, 1, 1) for DiT-B. A second generation layer reads the dense tokens
            again from the sparse ones; a second recovery layer merges again.
        upsample: of the recovery, ``'nearest'`` (the authors' code) or ``'bilinear'``.
        block: registered type of all layers, built with hidden_size, num_heads, mlp_ratio.
        recovery: registered type of the recovery, built with hidden_size, block, upsample.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        block_counts: Sequence[int] = (1, 3, 1, 1),
        upsample: str = 'nearest',
        block: dict | None = None,
        recovery: dict | None = None,
    ) -> None:
        super().__init__()
        counts = tuple(block_counts)
        if len(counts) != 4 or any(int(n) != n or n < 0 for n in counts):
            raise ValueError(
                f'block_counts {counts}: expected four whole numbers '
                '(generation, sparse, recovery, dense).'
            )
        if counts[0] < 1 or counts[2] < 1:
            raise ValueError(
                f'block_counts {counts}: an SDTM needs at least one generation and one recovery '
                'layer to go from dense to sparse tokens and back.'
            )
        shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
        block = {'type': 'TransformerBlock', **shape, **(block or {})}
        merge = dict(type='TokenRecovery', hidden_size=hidden_size, upsample=upsample, block=block)
        recovery = {**merge, **(recovery or {})}
        self.generation, self.sparse, self.recovery, self.dense = (
            nn.ModuleList(MODELS.build(layer) for _ in range(count))
            for layer, count in zip((block, block, recovery, block), counts, strict=True)
        )

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        *,
        grid: Grid,
        dense_grid: Grid,
        pos_embed: Tensor | None = None,
    ) -> Tensor:
        """Dense tokens in, dense tokens out.

        Args:
            x: dense tokens (B, N, C), N the product of ``dense_grid``.
            c: condition (B, C), or whatever the blocks take.
            grid: sparse grid (h, w); M is its product.
            dense_grid: grid (H, W) of ``x``.
            pos_embed: position table (1, N, C) added after each merge (paper, Sec. 4.1); None to
                leave it out, as the authors' released code does.
        """
        sparse = self.pool(x, dense_grid, grid)  # (B, M, C)
        for block in self.generation:  # Eq. 2: X_s + MHA(X_s, X)
            sparse = block(sparse, c, context=x)
        for block in self.sparse:
            sparse = block(sparse, c)
        for block in self.recovery:  # Eq. 3 and 4
            x = block(x, c, sparse, grid=grid, dense_grid=dense_grid, pos_embed=pos_embed)
        for block in self.dense:
            x = block(x, c)
        return x

    def pool(self, x: Tensor, dense_grid: Grid, grid: Grid) -> Tensor:
        """Dense tokens (B, ..., N, C) -> (B, ..., M, C), from which generation starts."""
        return pool_tokens(x, dense_grid, grid)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers in depth order, as (name, layer)."""
        return layers_of(self, ('generation', 'sparse', 'recovery', 'dense'))


def layers_of(module: nn.Module, groups: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    """The members of lists of layers, one list after the other, as (name, layer)."""
    for group in groups:
        for i, layer in enumerate(getattr(module, group)):
            yield f'{group}.{i}', layer

"""SDTM, the sparse-dense token module (SparseDiT, Sec. 3.3, Eq. 2-4).

B batch, N dense tokens, M sparse tokens, C width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .blocks import TransformerBlock
from .resample import UPSAMPLE_MODES, Grid, pool_tokens, upsample_tokens


class TokenRecovery(nn.Module):
    """Dense token recovery: merge sparse into dense tokens (Eq. 3), then attend to them (Eq. 4).

    Stands before the class of a block, whatever condition that takes. ``merge_sparse`` is W1 and
    starts at zero, ``merge_dense`` is W2 and starts at the identity, biases at zero: an untrained
    merge returns the dense tokens exactly. W1 acts per token and the weights of upsampling sum to
    one, so it is applied to the M sparse tokens and the result is upsampled: the same numbers at
    M / N of the cost.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        upsample: str = 'nearest',
    ) -> None:
        super().__init__(hidden_size, num_heads, mlp_ratio)
        if upsample not in UPSAMPLE_MODES:
            raise ValueError(f'upsample must be one of {UPSAMPLE_MODES}, got {upsample!r}.')
        self.upsample = upsample
        self.merge_sparse = nn.Linear(hidden_size, hidden_size)
        self.merge_dense = nn.Linear(hidden_size, hidden_size)
        self.init_merge()

    def init_merge(self) -> None:
        """W1 = 0, W2 = I, biases 0 (paper, Sec. 3.3)."""
        with torch.no_grad():
            self.merge_sparse.weight.zero_()
            self.merge_sparse.bias.zero_()
            self.merge_dense.weight.zero_().fill_diagonal_(1)
            self.merge_dense.bias.zero_()

    def merge(self, x: Tensor, sparse: Tensor, grid: Grid, dense_grid: Grid) -> Tensor:
        """Eq. 3: dense ``x`` (B, N, C) and ``sparse`` (B, M, C) -> (B, N, C)."""
        upsampled = upsample_tokens(self.merge_sparse(sparse), grid, dense_grid, self.upsample)
        return upsampled + self.merge_dense(x)

    def recover(
        self,
        x: Tensor,
        c: Tensor,
        sparse: Tensor,
        grid: Grid,
        dense_grid: Grid,
        pos_embed: Tensor | None = None,
    ) -> Tensor:
        """Eq. 3 and 4; ``pos_embed`` (1, N, C), when given, is added to the merged tokens."""
        merged = self.merge(x, sparse, grid, dense_grid)
        if pos_embed is not None:
            merged = merged + pos_embed
        return self(merged, c, context=sparse)


class TokenRecoveryBlock(TokenRecovery, TransformerBlock):
    """Token recovery by DiT's block."""


@MODELS.register_module()
class SDTM(nn.Module):
    """Sparse-dense token module: pool to M tokens, work on them, return to N tokens.

    Args:
        block_counts: layers for (generation, sparse, recovery, dense); the paper uses (1, 3, 1, 1)
            for DiT-XL and (1, 2, 1, 1) for DiT-B. A second generation layer reads the dense tokens
            again from the sparse ones; a second recovery layer merges again.
        upsample: ``'nearest'`` (the authors' code) or ``'bilinear'``.

    A subclass names blocks of another condition (``block_type``, ``recovery_type``).
    """

    block_type: type[nn.Module] = TransformerBlock
    recovery_type: type[nn.Module] = TokenRecoveryBlock

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        block_counts: Sequence[int] = (1, 3, 1, 1),
        upsample: str = 'nearest',
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

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                self.block_type(hidden_size, num_heads, mlp_ratio) for _ in range(count)
            )

        self.generation = blocks(counts[0])
        self.sparse = blocks(counts[1])
        self.recovery = nn.ModuleList(
            self.recovery_type(hidden_size, num_heads, mlp_ratio, upsample)
            for _ in range(counts[2])
        )
        self.dense = blocks(counts[3])

    def forward(
        self,
        x: Tensor,
        c: Tensor,
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
        sparse = pool_tokens(x, dense_grid, grid)  # (B, M, C)
        for block in self.generation:
            sparse = block(sparse, c, context=x)
        for block in self.sparse:
            sparse = block(sparse, c)
        for block in self.recovery:
            x = block.recover(x, c, sparse, grid, dense_grid, pos_embed)  # (B, N, C)
        for block in self.dense:
            x = block(x, c)
        return x

    def layers(self):
        """The layers in depth order, as (name, block)."""
        for group in ('generation', 'sparse', 'recovery', 'dense'):
            for i, block in enumerate(getattr(self, group)):
                yield f'{group}.{i}', block

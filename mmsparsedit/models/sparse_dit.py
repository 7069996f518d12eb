"""SparseDiT: DiT whose layers read fewer tokens (SparseDiT, Sec. 3; DiT, Peebles and Xie 2023).

The whole network, top to bottom. The dense DiT is the case without bottom and middle:
``num_bottom=0, num_sdtm=0, num_top=depth``.

B batch, N = H * W dense tokens, C width, p patch size.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmsparsedit.nn import (
    FinalLayer,
    LabelEmbedder,
    PatchEmbed,
    PoolingAttention,
    TimestepEmbedder,
    TokenRecoveryBlock,
    TransformerBlock,
    check_grid,
    sincos_pos_embed_2d,
)
from mmsparsedit.nn.step_cache import MiddleResidual, run_middle
from mmsparsedit.registry import MODELS


@MODELS.register_module()
class SparseDiT(nn.Module):
    """Class-conditional diffusion transformer with a bottom, a sparse middle and a top.

    Bottom layers mix tokens by a mean, each SDTM of the middle drops to the sparse grid and
    returns, top layers are DiT's. Layer i of the depth keeps the weights of layer i of the dense
    model (``named_layers``).

    Args:
        input_size: side, or (height, width), of the latent.
        patch_size: p.
        num_classes: labels are 0 ... num_classes - 1; the null label of guidance is num_classes.
        class_dropout_prob: share of labels that training drops (``DiffusionGenerator`` does it);
            0 builds no embedding of the null label.
        learn_sigma: predict, besides eps, the interpolation of the variance: 2 * in_channels out.
        num_bottom, num_sdtm, num_top: layers, modules, layers.
        bottom_block, sdtm: registered types, built with hidden_size, num_heads, mlp_ratio.
        reinject_pos_embed: add the position table again after each recovery (paper, Sec. 4.1);
            the authors' released code does not.
        upsample: of the recovery, ``'nearest'`` or ``'bilinear'``.
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        class_dropout_prob: float = 0.1,
        learn_sigma: bool = True,
        num_bottom: int = 2,
        num_sdtm: int = 4,
        num_top: int = 2,
        bottom_block: dict | None = None,
        sdtm: dict | None = None,
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
    ) -> None:
        super().__init__()
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f'input_size {(height, width)} is not a multiple of patch_size {patch_size}.'
            )
        if not 0 <= class_dropout_prob < 1:
            raise ValueError(f'class_dropout_prob must be in [0, 1), got {class_dropout_prob}.')
        self.input_size = (height, width)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.out_channels = in_channels * 2 if learn_sigma else in_channels
        self.hidden_size = hidden_size
        self.num_classes = num_classes
        self.class_dropout_prob = class_dropout_prob
        self.learn_sigma = learn_sigma
        self.reinject_pos_embed = reinject_pos_embed
        self.data_shape = (in_channels, height, width)
        self.token_grid = (height // patch_size, width // patch_size)

        self.x_embedder = PatchEmbed(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size, class_dropout_prob > 0)
        self.register_buffer('pos_embed', sincos_pos_embed_2d(hidden_size, self.token_grid))

        shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
        bottom_block = {**shape, **(bottom_block or dict(type='PoolingFormerBlock'))}
        sdtm = {**shape, 'upsample': upsample, **(sdtm or dict(type='SDTM'))}
        self.bottom = nn.ModuleList(MODELS.build(bottom_block) for _ in range(num_bottom))
        self.middle = nn.ModuleList(MODELS.build(sdtm) for _ in range(num_sdtm))
        self.top = nn.ModuleList(TransformerBlock(**shape) for _ in range(num_top))
        self.final_layer = FinalLayer(hidden_size, patch_size, self.out_channels)
        self.init_weights()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        grid: tuple[int, int] | None = None,
        kept: MiddleResidual | None = None,
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latent (B, C_in, height, width).
            t: timesteps (B,), fractions allowed.
            y: labels (B,), num_classes for none.
            grid: sparse token grid (h, w) of the middle; None reads the dense grid everywhere.
            kept: of a step cache, see ``run_middle``.

        Returns:
            (B, C_out, height, width).
        """
        if x.shape[1:] != (self.in_channels, *self.input_size):
            raise ValueError(
                f'latent of shape {tuple(x.shape)}: expected '
                f'(B, {self.in_channels}, {self.input_size[0]}, {self.input_size[1]}). Set '
                'input_size and in_channels of the network, or use data of that size.'
            )
        grid = self._sparse_grid(grid)
        reinjected = self.pos_embed if self.reinject_pos_embed else None

        x = self.x_embedder(x) + self.pos_embed  # (B, N, C)
        c = self.t_embedder(t) + self.y_embedder(y)  # (B, C)
        for block in self.bottom:
            x = block(x, c)
        x = run_middle(self.middle, x, kept, c, grid, self.token_grid, reinjected)
        for block in self.top:
            x = block(x, c)
        return self.unpatchify(self.final_layer(x, c))  # (B, C_out, height, width)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, N, p * p * C_out), laid out (row, column, channel) -> (B, C_out, height, width)."""
        h, w = self.token_grid
        p = self.patch_size
        x = x.view(-1, h, w, p, p, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, h * p, w * p)

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers in depth order as (name, block): layer i holds dense layer i's weights."""
        for i, block in enumerate(self.bottom):
            yield f'bottom.{i}', block
        for m, module in enumerate(self.middle):
            for name, block in module.layers():
                yield f'middle.{m}.{name}', block
        for i, block in enumerate(self.top):
            yield f'top.{i}', block

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, for counting and timing."""
        return dict(
            x=torch.zeros(batch_size, self.in_channels, *self.input_size, device=device),
            t=torch.zeros(batch_size, device=device),
            y=torch.zeros(batch_size, dtype=torch.long, device=device),
        )

    def reference_extra_macs(self, grid: tuple[int, int] | None = None) -> dict[str, int]:
        """MACs per sample that the authors' code spends beyond this one, by name.

        The numbers it computes are the same: it maps values before taking their mean, takes the
        mean by a product with an N x N matrix of ones, and upsamples before W1.
        """
        N, C = math.prod(self.token_grid), self.hidden_size
        M = math.prod(self._sparse_grid(grid))
        pooling = sum(isinstance(m, PoolingAttention) for m in self.modules())
        recovery = sum(isinstance(m, TokenRecoveryBlock) for m in self.modules())
        return {
            'values before mean': pooling * 2 * (N - 1) * C**2,
            'merge after upsampling': recovery * (N - M) * C**2,
            'ones product': pooling * N**2 * C,
        }

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.named_layers())

    def _sparse_grid(self, grid: tuple[int, int] | None) -> tuple[int, ...]:
        if grid is None:
            return self.token_grid
        if not self.middle:
            raise ValueError(
                f'grid {tuple(grid)} was given, but the network has no SDTM that could use it: '
                'call a dense model without grid, or set num_sdtm.'
            )
        return check_grid(grid, self.token_grid)

    @torch.no_grad()
    def init_weights(self) -> None:
        """DiT's initialisation: Xavier linears; modulation and last layer zero; W1 = 0, W2 = I."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.x_embedder.proj
        nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
        nn.init.zeros_(projection.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        for _, block in self.named_layers():
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            if hasattr(block, 'init_merge'):
                block.init_merge()
        nn.init.zeros_(self.final_layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

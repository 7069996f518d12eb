"""SparsePixArt: PixArt-alpha whose self-attention reads fewer tokens (SparseDiT, Sec. 4.3).

The whole network, top to bottom. The dense PixArt (Chen et al. 2023) is the case without bottom
and middle: ``num_bottom=0, num_sdtm=0, num_top=depth``.

B batch, N = H * W dense tokens, C width, p patch size, L caption tokens.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmsparsedit.nn import (
    PatchEmbed,
    PoolingAttention,
    TimestepEmbedder,
    check_grid,
    sincos_pos_embed_2d,
)
from mmsparsedit.nn.caption import (
    CaptionBlock,
    CaptionCondition,
    CaptionEmbedder,
    CaptionFinalLayer,
    SizeEmbedder,
)
from mmsparsedit.nn.sdtm import TokenRecovery
from mmsparsedit.nn.step_cache import MiddleResidual, run_middle
from mmsparsedit.registry import MODELS


@MODELS.register_module()
class SparsePixArt(nn.Module):
    """Text-conditional diffusion transformer with a bottom, a sparse middle and a top.

    As ``SparseDiT``, with PixArt's blocks: one modulation for all layers plus a table per layer,
    and a cross-attention to the caption in every layer, on the tokens that the layer holds.

    Args:
        input_size: side, or (height, width), of the latent.
        patch_size: p.
        caption_channels: width of the text encoder; 4096 for T5-XXL.
        model_max_length: most tokens of a caption, and the length of the null caption.
        pe_interpolation: positions are divided by it: 1 at 256 and 512 px, 2 at 1024 px (PixArt's
            ``lewei_scale``).
        pe_base_size: side in tokens of the square grid whose span of positions this one is fitted
            to; by default the side of a square input. A non-square one has to name it: 64 for the
            1024-MS checkpoints.
        micro_condition: embed size and aspect ratio of the image (1024-MS checkpoints).
        class_dropout_prob: share of captions that training drops (``TextToImageGenerator`` does).
        learn_sigma: predict, besides eps, the interpolation of the variance: 2 * in_channels out.
        num_bottom, num_sdtm, num_top: layers, modules, layers.
        bottom_block, sdtm: registered types, built with hidden_size, num_heads, mlp_ratio; their
            blocks take a ``CaptionCondition``.
        reinject_pos_embed: add the position table again after each recovery (paper, Sec. 4.1).
        upsample: of the recovery, ``'nearest'`` or ``'bilinear'``.
        pack_captions: project the valid tokens of captions only (``CaptionEmbedder``).
    """

    num_classes = None

    def __init__(
        self,
        input_size: int | tuple[int, int] = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        pe_interpolation: float = 1.0,
        pe_base_size: int | None = None,
        micro_condition: bool = False,
        class_dropout_prob: float = 0.1,
        learn_sigma: bool = True,
        num_bottom: int = 2,
        num_sdtm: int = 4,
        num_top: int = 2,
        bottom_block: dict | None = None,
        sdtm: dict | None = None,
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
        pack_captions: bool = False,
    ) -> None:
        super().__init__()
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f'input_size {(height, width)} is not a multiple of patch_size {patch_size}.'
            )
        if not 0 <= class_dropout_prob < 1:
            raise ValueError(f'class_dropout_prob must be in [0, 1), got {class_dropout_prob}.')
        if pe_interpolation <= 0:
            raise ValueError(f'pe_interpolation must be above 0, got {pe_interpolation}.')
        if micro_condition and hidden_size % 3:
            raise ValueError(
                f'hidden_size {hidden_size} is not divisible by 3: micro_condition embeds height, '
                'width and aspect ratio with a third of the width each.'
            )
        self.input_size = (height, width)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.out_channels = in_channels * 2 if learn_sigma else in_channels
        self.hidden_size = hidden_size
        self.caption_channels = caption_channels
        self.model_max_length = model_max_length
        self.micro_condition = micro_condition
        self.pack_captions = pack_captions
        self.class_dropout_prob = class_dropout_prob
        self.learn_sigma = learn_sigma
        self.reinject_pos_embed = reinject_pos_embed
        self.data_shape = (in_channels, height, width)
        self.token_grid = (height // patch_size, width // patch_size)

        self.x_embedder = PatchEmbed(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = CaptionEmbedder(
            caption_channels, hidden_size, model_max_length, pack_captions
        )
        if micro_condition:
            self.csize_embedder = SizeEmbedder(hidden_size // 3)
            self.ar_embedder = SizeEmbedder(hidden_size // 3)
        self.register_buffer('pos_embed', self._positions(pe_interpolation, pe_base_size))

        shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
        bottom_block = {**shape, **(bottom_block or dict(type='CaptionPoolingBlock'))}
        sdtm = {**shape, 'upsample': upsample, **(sdtm or dict(type='CaptionSDTM'))}
        self.bottom = nn.ModuleList(MODELS.build(bottom_block) for _ in range(num_bottom))
        self.middle = nn.ModuleList(MODELS.build(sdtm) for _ in range(num_sdtm))
        self.top = nn.ModuleList(CaptionBlock(**shape) for _ in range(num_top))
        self.final_layer = CaptionFinalLayer(hidden_size, patch_size, self.out_channels)
        self.init_weights()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        img_hw: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
        kept: MiddleResidual | None = None,
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latent (B, C_in, height, width).
            t: timesteps (B,), fractions allowed.
            y: text features (B, L, caption_channels), L at most model_max_length.
            mask: (B, L), 1 for valid tokens; None when all are. Others have no influence; a
                caption without valid tokens is read as nothing.
            grid: sparse token grid (h, w) of the middle; None reads the dense grid everywhere.
            img_hw, aspect_ratio: height and width in pixels (B, 2), height / width (B, 1); with
                micro_condition only.
            kept: of a step cache, see ``run_middle``.

        Returns:
            (B, C_out, height, width).
        """
        self._check_latent(x)
        self.check_captions(y, mask)
        grid = self._sparse_grid(grid)
        reinjected = self.pos_embed if self.reinject_pos_embed else None

        x = self.x_embedder(x) + self.pos_embed  # (B, N, C)
        t = self.t_embedder(t)  # (B, C)
        if self.micro_condition:
            t = t + self._embed_size(img_hw, aspect_ratio)
        modulation = self.t_block(t).unflatten(-1, (6, -1))  # (B, 6, C)
        c = CaptionCondition(modulation, self.y_embedder(y, mask))
        for block in self.bottom:
            x = block(x, c)
        x = run_middle(self.middle, x, kept, c, grid, self.token_grid, reinjected)
        for block in self.top:
            x = block(x, c)
        return self.unpatchify(self.final_layer(x, t))  # (B, C_out, height, width)

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

    @torch.no_grad()
    def set_null_caption(self, y: Tensor, mask: Tensor) -> None:
        """Make an encoded empty caption the null caption, for weights that come without one.

        The valid tokens are repeated over all places. T5 gives "" one token, and attention over
        copies of one token is attention to it: whatever mask the null half of guidance has, the
        result is that of reading "" alone (diffusers' pipeline).

        Args:
            y: features (L, caption_channels) of the text encoder.
            mask: (L,), 1 for valid tokens.
        """
        if y.ndim != 2 or y.shape[1] != self.caption_channels or mask.shape != y.shape[:1]:
            raise ValueError(
                f'null caption of shape {tuple(y.shape)} with a mask of {tuple(mask.shape)}: '
                f'expected (L, {self.caption_channels}) and (L,).'
            )
        valid = y[mask.bool()]
        if not len(valid):
            raise ValueError('the null caption has no valid token: encode "" with its end token.')
        places = torch.arange(self.model_max_length, device=valid.device) % len(valid)
        self.y_embedder.y_embedding.copy_(valid[places])

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, for counting and timing; full captions."""
        length = self.model_max_length
        inputs = dict(
            x=torch.zeros(batch_size, self.in_channels, *self.input_size, device=device),
            t=torch.zeros(batch_size, device=device),
            y=torch.zeros(batch_size, length, self.caption_channels, device=device),
        )
        if not self.y_embedder.pack:  # shapes that depend on a mask's content cannot be traced
            inputs['mask'] = torch.ones(batch_size, length, dtype=torch.long, device=device)
        if self.micro_condition:
            inputs['img_hw'] = torch.ones(batch_size, 2, device=device)
            inputs['aspect_ratio'] = torch.ones(batch_size, 1, device=device)
        return inputs

    def reference_extra_macs(self, grid: tuple[int, int] | None = None) -> dict[str, int]:
        """MACs per sample that the paper counts beyond this network's, by name.

        The numbers it computes are the same: it maps values before taking their mean, takes the
        mean by a product with an N x N matrix of ones, and upsamples before W1.
        """
        N, C = math.prod(self.token_grid), self.hidden_size
        M = math.prod(self._sparse_grid(grid))
        pooling = sum(isinstance(m, PoolingAttention) for m in self.modules())
        recovery = sum(isinstance(m, TokenRecovery) for m in self.modules())
        return {
            'values before mean': pooling * 2 * (N - 1) * C**2,
            'merge after upsampling': recovery * (N - M) * C**2,
            'ones product': pooling * N**2 * C,
        }

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.named_layers())

    def _positions(self, interpolation: float, base_size: int | None) -> Tensor:
        """Position table (1, N, C): index / (side / base_size) / interpolation along each axis."""
        h, w = self.token_grid
        if base_size is None:
            if h != w:
                raise ValueError(
                    f'input_size {self.input_size} is not square: name pe_base_size, the side in '
                    'tokens of the square training size (64 for the 1024-MS checkpoints).'
                )
            base_size = h
        scale = (h / base_size * interpolation, w / base_size * interpolation)
        return sincos_pos_embed_2d(self.hidden_size, self.token_grid, scale)

    def _embed_size(self, img_hw: Tensor | None, aspect_ratio: Tensor | None) -> Tensor:
        if img_hw is None or aspect_ratio is None:
            raise ValueError(
                'a micro-conditioned network needs img_hw (B, 2), height and width in pixels, and '
                'aspect_ratio (B, 1), height / width.'
            )
        return torch.cat([self.csize_embedder(img_hw), self.ar_embedder(aspect_ratio)], dim=-1)

    def _check_latent(self, x: Tensor) -> None:
        if x.shape[1:] != (self.in_channels, *self.input_size):
            raise ValueError(
                f'latent of shape {tuple(x.shape)}: expected '
                f'(B, {self.in_channels}, {self.input_size[0]}, {self.input_size[1]}). Set '
                'input_size and in_channels of the network, or use data of that size.'
            )

    def check_captions(self, y: Tensor, mask: Tensor | None = None) -> None:
        """Raise ValueError if features ``y`` and ``mask`` are not what this network reads."""
        most, width = self.model_max_length, self.caption_channels
        if y.ndim != 3 or y.shape[2] != width or not 1 <= y.shape[1] <= most:
            raise ValueError(
                f'captions of shape {tuple(y.shape)}: expected (B, L, {width}) with L of 1 to '
                f'{most}. Set caption_channels to the width of the text encoder, and '
                'model_max_length to what it was trained with, or cut the captions.'
            )
        if mask is not None and mask.shape != y.shape[:2]:
            raise ValueError(
                f'mask of shape {tuple(mask.shape)} for captions of {tuple(y.shape)}: expected '
                f'{tuple(y.shape[:2])}, 1 for valid tokens.'
            )

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
        """PixArt's initialisation: Xavier linears; what reads captions, and the last layer, zero.

        W1 = 0, W2 = I. The tables of the blocks are drawn where they are made.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.x_embedder.proj
        nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
        nn.init.zeros_(projection.bias)
        small = [*self.t_embedder.mlp, *self.t_block, *self.y_embedder.y_proj.children()]
        if self.micro_condition:
            small += [*self.csize_embedder.mlp, *self.ar_embedder.mlp]
        for module in small:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for _, block in self.named_layers():
            nn.init.zeros_(block.cross_attn.proj.weight)
            if hasattr(block, 'init_merge'):
                block.init_merge()
        nn.init.zeros_(self.final_layer.linear.weight)

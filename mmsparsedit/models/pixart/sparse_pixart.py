"""SparsePixArt: PixArt-alpha whose self-attention reads fewer tokens (SparseDiT, Sec. 4.3).

PixArt: Chen et al. 2023. B batch, N = H * W dense tokens, C width, L caption tokens.
"""

import torch
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer, sincos_pos_embed_2d
from mmsparsedit.nn.captions import (
    CaptionEmbedder,
    PixArtCondition,
    PixArtFinalLayer,
    ReadsCaptions,
    SizeEmbedder,
)
from mmsparsedit.registry import MODELS

from .layouts import DIFFUSERS, PIXART


@MODELS.register_module()
class SparsePixArt(ReadsCaptions, SparseTransformer):
    """Text-conditional diffusion transformer with a bottom, a sparse middle and a top.

    PixArt's blocks: one modulation for all layers plus a table per layer, and a cross-attention to
    the caption in every layer, on the tokens that the layer holds.

    Args:
        caption_channels: width of the text encoder; 4096 for T5-XXL.
        model_max_length: most tokens of a caption, and the length of the null caption.
        pe_interpolation: positions are divided by it: 1 at 256 and 512 px, 2 at 1024 px (PixArt's
            ``lewei_scale``).
        pe_base_size: side in tokens of the square grid whose span of positions this one is fitted
            to; by default the side of a square input. A non-square one has to name it: 64 for the
            1024-MS checkpoints.
        micro_condition: embed size and aspect ratio of the image (1024-MS checkpoints).
        pack_captions: project the valid tokens of captions only (``CaptionEmbedder``).
        base: arguments of ``SparseTransformer``.
    """

    block_type = 'PixArtBlock'
    pooling_type = 'PixArtPoolingBlock'
    layouts = (PIXART, DIFFUSERS)

    def __init__(
        self,
        *,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        pe_interpolation: float = 1.0,
        pe_base_size: int | None = None,
        micro_condition: bool = False,
        pack_captions: bool = False,
        **base,
    ) -> None:
        super().__init__(**base)
        width = self.hidden_size
        if pe_interpolation <= 0:
            raise ValueError(f'pe_interpolation must be above 0, got {pe_interpolation}.')
        if micro_condition and width % 3:
            raise ValueError(
                f'hidden_size {width} is not divisible by 3: micro_condition embeds height, '
                'width and aspect ratio with a third of the width each.'
            )
        self.caption_channels = caption_channels
        self.model_max_length = model_max_length
        self.micro_condition = micro_condition
        self.static_shapes = not pack_captions
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(caption_channels, width, model_max_length, pack_captions)
        if micro_condition:
            self.csize_embedder = SizeEmbedder(width // 3)
            self.ar_embedder = SizeEmbedder(width // 3)
        self.pe_interpolation, self.pe_base_size = pe_interpolation, self._base_size(pe_base_size)
        self.register_buffer('pos_embed', self.positions(self.token_grid))
        self.build_layers()
        self.number_readers()
        self.final_layer = PixArtFinalLayer(width, self.patch_size, self.out_channels)
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
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latent (B, C_in, height, width).
            t: timesteps (B,), fractions allowed.
            y: text features (B, L, caption_channels), L at most model_max_length; or what
                ``read_once`` made of them, for many calls.
            mask: (B, L), 1 for valid tokens; None when all are. Others have no influence; a
                caption without valid tokens is read as nothing.
            grid: sparse token grid (h, w) of the middle; None reads the dense grid everywhere.
            img_hw, aspect_ratio: height and width in pixels (B, 2), height / width (B, 1); with
                micro_condition only.

        Returns:
            (B, C_out, height, width).
        """
        net = self.at_size(x.shape[-2:])
        x, c = net.embed(x, t, y, mask, img_hw, aspect_ratio)  # (B, N, C)
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)  # (B, C_out, height, width)

    def embed(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        img_hw: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> tuple[Tensor, PixArtCondition]:
        self.check_latent(x)
        text = self.read_captions(y, mask)
        t = self.t_embedder(t)  # (B, C)
        if self.micro_condition:
            t = t + self._embed_size(img_hw, aspect_ratio)
        modulation = self.t_block(t).unflatten(-1, (6, -1))  # (B, 6, C)
        c = PixArtCondition(t, modulation, text)
        return self.x_embedder(x) + self.pos_embed, c

    def head(self, x: Tensor, c: PixArtCondition) -> Tensor:
        return self.unpatchify(self.final_layer(x, c.t))

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, for counting and timing; full captions."""
        length = self.model_max_length
        inputs = super().example_inputs(batch_size, device)
        inputs['y'] = torch.zeros(batch_size, length, self.caption_channels, device=device)
        if self.static_shapes:  # shapes that depend on a mask's content cannot be traced
            inputs['mask'] = torch.ones(batch_size, length, dtype=torch.long, device=device)
        if self.micro_condition:
            inputs['img_hw'] = torch.ones(batch_size, 2, device=device)
            inputs['aspect_ratio'] = torch.ones(batch_size, 1, device=device)
        return inputs

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table (1, N, C): index / (side / base_size) / interpolation along each axis."""
        scale = tuple(side / self.pe_base_size * self.pe_interpolation for side in grid)
        return sincos_pos_embed_2d(self.hidden_size, grid, scale)

    def _base_size(self, base_size: int | None) -> int:
        h, w = self.token_grid
        if base_size is None and h != w:
            raise ValueError(
                f'input_size {self.input_size} is not square: name pe_base_size, the side in '
                'tokens of the square training size (64 for the 1024-MS checkpoints).'
            )
        return h if base_size is None else base_size

    def _embed_size(self, img_hw: Tensor | None, aspect_ratio: Tensor | None) -> Tensor:
        if img_hw is None or aspect_ratio is None:
            raise ValueError(
                'a micro-conditioned network needs img_hw (B, 2), height and width in pixels, and '
                'aspect_ratio (B, 1), height / width.'
            )
        return torch.cat([self.csize_embedder(img_hw), self.ar_embedder(aspect_ratio)], dim=-1)

    def embedder_weights(self) -> list[Tensor]:
        projections = [*self.t_block, *self.y_embedder.y_proj.children()]
        if self.micro_condition:
            projections += [*self.csize_embedder.mlp, *self.ar_embedder.mlp]
        linears = (module for module in projections if isinstance(module, nn.Linear))
        return [*super().embedder_weights(), *(linear.weight for linear in linears)]

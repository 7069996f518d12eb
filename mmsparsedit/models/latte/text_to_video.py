"""SparseLatteT2V: the text-to-video Latte whose layers read fewer positions and frames.

Latte-1 (Ma et al. 2024), as diffusers' LatteTransformer3DModel: layers in space are PixArt's and
read the caption, layers in time are PixArt's without it.

B clips, F frames, S = H * W positions, C width, L caption tokens.
"""

import torch
from torch import Tensor, nn

from mmsparsedit.nn import sincos_pos_embed_2d
from mmsparsedit.nn.captions import (
    CaptionEmbedder,
    PixArtCondition,
    PixArtFinalLayer,
    ReadsCaptions,
)
from mmsparsedit.registry import MODELS

from .factorised import ClipCondition
from .layouts import TEXT_TO_VIDEO
from .video_transformer import VideoTransformer


@MODELS.register_module()
class SparseLatteT2V(ReadsCaptions, VideoTransformer):
    """Text-conditional video diffusion transformer with a bottom, a sparse middle and a top.

    The caption is embedded once per clip, and each layer in space reads it for all frames at once,
    where the reference repeats it for every frame.

    Args:
        num_frames: F.
        caption_channels: width of the text encoder; 4096 for T5-XXL.
        model_max_length: most tokens of a caption, and the length of the null caption.
        pe_interpolation: positions are divided by it: 1 up to 512 px, 2 at 1024 px.
        recover_order: see ``FactorisedSDTM``.
        base: arguments of ``SparseTransformer``. Latte-1 has 56 layers, in space and in time by
            turns: 4 bottom layers, 8 SDTMs of 6 and 4 top layers make as many.
    """

    block_type = 'PixArtBlock'
    pooling_type = 'PixArtPoolingBlock'
    temporal_block = dict(captions=False)
    layouts = (TEXT_TO_VIDEO,)

    def __init__(
        self,
        *,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        pe_interpolation: float = 1.0,
        num_bottom: int = 4,
        num_sdtm: int = 8,
        num_top: int = 4,
        **base,
    ) -> None:
        super().__init__(num_bottom=num_bottom, num_sdtm=num_sdtm, num_top=num_top, **base)
        width = self.hidden_size
        if pe_interpolation <= 0:
            raise ValueError(f'pe_interpolation must be above 0, got {pe_interpolation}.')
        self.caption_channels = caption_channels
        self.model_max_length = model_max_length
        self.pe_interpolation = pe_interpolation
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(caption_channels, width, model_max_length)
        self.build_tables()
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
        grid: tuple[int, int, int] | None = None,
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latents (B, F, C_in, height, width).
            t: timesteps (B,), fractions allowed.
            y: text features (B, L, caption_channels), L at most model_max_length; or what
                ``read_once`` made of them, for many calls.
            mask: (B, L), 1 for valid tokens; None when all are.
            grid: sparse token grid (f, h, w) of the middle; None reads the dense grid everywhere.

        Returns:
            (B, F, C_out, height, width).
        """
        net = self.at_size(x.shape[-2:])
        x, c = net.embed(x, t, y, mask)  # (B, F, S, C)
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)  # (B, F, C_out, height, width)

    def embed(
        self, x: Tensor, t: Tensor, y: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, ClipCondition]:
        self.check_latent(x, self.num_frames)
        text = self.read_captions(y, mask)
        tokens = self.x_embedder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, F, S, C)
        t = self.t_embedder(t)  # (B, C)
        modulation = self.t_block(t).unflatten(-1, (6, -1))  # (B, 6, C)
        clip = PixArtCondition(t, modulation, text)
        return tokens + self.pos_embed, ClipCondition(clip)

    def head(self, x: Tensor, c: ClipCondition) -> Tensor:
        return self.unpatchify(self.final_layer(x, c.clip.t))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table (1, S, C) of a frame: the span of the built size at any size."""
        scale = tuple(
            new / own * self.pe_interpolation
            for new, own in zip(grid, self.token_grid[-2:], strict=True)
        )
        return sincos_pos_embed_2d(self.hidden_size, grid, scale)

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, for counting and timing; full captions."""
        length = self.model_max_length
        inputs = super().example_inputs(batch_size, device)
        inputs['y'] = torch.zeros(batch_size, length, self.caption_channels, device=device)
        inputs['mask'] = torch.ones(batch_size, length, dtype=torch.long, device=device)
        return inputs

    def embedder_weights(self) -> list[Tensor]:
        projections = self.y_embedder.y_proj
        linears = (self.t_block[1], projections.fc1, projections.fc2)
        return [*super().embedder_weights(), *(linear.weight for linear in linears)]

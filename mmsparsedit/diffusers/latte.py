"""SparseLatteT2V for diffusers' ``LattePipeline``."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from mmsparsedit.models import SparseLatteT2V

from .base import SparseTransformerModel, demand
from .pixart import valid_tokens


class SparseLatteTransformer3DModel(SparseTransformerModel):
    """``SparseLatteT2V`` with the constructor's names and forward signature of diffusers' Latte.

    Layers are counted in space and in time together: Latte-1 has 56 (``num_layers=28`` there).

    Args:
        num_attention_heads, attention_head_dim: heads, and width of each.
        out_channels: in_channels, or twice that with a learned variance.
        sample_size: side of the latent that positions are computed for; inputs may have any.
        video_length: frames, of every input.
        interpolation_scale: positions are divided by it; None is sample_size // 64, at least 1.
        caption_channels: width of the text encoder.
        model_max_length: most tokens of a caption.
        num_bottom, num_sdtm, num_top: layers, modules, layers; dense with ``num_bottom=0,
            num_sdtm=0``. Bottom and top are even.
        num_sparse, recover_order: of ``FactorisedSDTM``.
        reinject_pos_embed, upsample: as of ``SparseLatteT2V``.
        prune: arguments of ``TimestepPruneScheduler``, e.g. ``dict(r_min=0.5, r_max=0.8,
            num_frames=8)``; None reads the dense grid everywhere.
        network_kwargs: further arguments of ``SparseLatteT2V``.
    """

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        sample_size: int = 64,
        patch_size: int = 2,
        mlp_ratio: float = 4.0,
        video_length: int = 16,
        interpolation_scale: float | None = None,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        num_bottom: int = 4,
        num_sdtm: int = 8,
        num_top: int = 4,
        num_sparse: int = 2,
        recover_order: str = 'temporal_first',
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
        prune: dict | None = None,
        network_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        self._hold(SparseLatteT2V(**self.network_options()), prune)

    def network_options(self) -> dict[str, Any]:
        """Arguments of ``SparseLatteT2V`` that this model's config stands for."""
        config = self.config
        interpolation = config.interpolation_scale
        own = dict(
            num_frames=config.video_length,
            caption_channels=config.caption_channels,
            model_max_length=config.model_max_length,
            pe_interpolation=max(config.sample_size // 64, 1)
            if interpolation is None
            else interpolation,
            recover_order=config.recover_order,
            sdtm=dict(num_sparse=config.num_sparse),
        )
        return self.shared_options(config) | own | (config.network_kwargs or {})

    def network_inputs(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        enable_temporal_attentions: bool = True,
    ) -> dict[str, Any]:
        demand(timestep=timestep, encoder_hidden_states=encoder_hidden_states)
        if not enable_temporal_attentions:
            raise ValueError(
                'enable_temporal_attentions=False: a sparse Latte reads fewer frames in its layers '
                'in time and cannot leave them out. Use the dense model for single images.'
            )
        return self.staged(
            hidden_states.transpose(1, 2),  # (B, F, C_in, H, W)
            timestep,
            y=encoder_hidden_states,
            mask=valid_tokens(encoder_attention_mask),
        )

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        enable_temporal_attentions: bool = True,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict eps, and the variance where learned.

        Args:
            hidden_states: noisy latents (B, C_in, F, H, W), of any H and W that patches divide.
            timestep: number, or (B,) of one stage.
            encoder_hidden_states: text features (B, L, caption_channels).
            encoder_attention_mask: (B, L), 1 for valid tokens, or a bias (B, 1, L), 0 for them.
            enable_temporal_attentions: only True: an SDTM has no way without layers in time.

        Returns:
            ``sample`` (B, C_out, F, H, W), in a tuple where ``return_dict`` is False.
        """
        inputs = self.network_inputs(
            hidden_states,
            timestep,
            encoder_hidden_states,
            encoder_attention_mask,
            enable_temporal_attentions,
        )
        return self.output(self.denoise(**inputs).transpose(1, 2), return_dict)

"""SparsePixArt for diffusers' ``PixArtAlphaPipeline``. L caption tokens."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from mmsparsedit.models import SparsePixArt

from .base import SparseTransformerModel, demand, refuse_unread


class SparsePixArtTransformer2DModel(SparseTransformerModel):
    """``SparsePixArt`` with the constructor's names and the forward signature of diffusers'.

    Args:
        num_attention_heads, attention_head_dim: heads, and width of each.
        out_channels: in_channels, or twice that with a learned variance.
        sample_size: side of the latent that positions are computed for; inputs may have any
            height and width (aspect bins). 128 makes the pipeline send image sizes.
        interpolation_scale: positions are divided by it; by default sample_size // 64, at least 1.
        use_additional_conditions: embed size and aspect ratio of the image; by default at
            sample_size 128 only.
        caption_channels: width of the text encoder.
        model_max_length: most tokens of a caption.
        num_bottom, num_sdtm, num_top, block_counts, reinject_pos_embed, upsample: as of
            ``SparsePixArt``; dense with ``num_bottom=0, num_sdtm=0``.
        prune: arguments of ``TimestepPruneScheduler``; None reads the dense grid everywhere.
        network_kwargs: further arguments of ``SparsePixArt``.
    """

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        sample_size: int = 32,
        patch_size: int = 2,
        mlp_ratio: float = 4.0,
        interpolation_scale: float | None = None,
        use_additional_conditions: bool | None = None,
        caption_channels: int = 4096,
        model_max_length: int = 120,
        num_bottom: int = 2,
        num_sdtm: int = 4,
        num_top: int = 2,
        block_counts: tuple[int, int, int, int] = (1, 3, 1, 1),
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
        prune: dict | None = None,
        network_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        self._hold(SparsePixArt(**self.network_options()), prune)

    def network_options(self) -> dict[str, Any]:
        """Arguments of ``SparsePixArt`` that this model's config stands for."""
        config = self.config
        interpolation, sized = config.interpolation_scale, config.use_additional_conditions
        own = dict(
            caption_channels=config.caption_channels,
            model_max_length=config.model_max_length,
            pe_interpolation=max(config.sample_size // 64, 1)
            if interpolation is None
            else interpolation,
            micro_condition=config.sample_size == 128 if sized is None else sized,
        )
        return self.shared_options(config) | own | (config.network_kwargs or {})

    def network_inputs(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | float | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        demand(timestep=timestep, encoder_hidden_states=encoder_hidden_states)
        refuse_unread(cross_attention_kwargs=cross_attention_kwargs, attention_mask=attention_mask)
        sizes = {}
        if self.network.micro_condition:
            added = added_cond_kwargs or {}
            sizes = dict(img_hw=added.get('resolution'), aspect_ratio=added.get('aspect_ratio'))
        mask = valid_tokens(encoder_attention_mask)
        return self.staged(hidden_states, timestep, y=encoder_hidden_states, mask=mask, **sizes)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | float | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict eps, and the variance where learned.

        Args:
            hidden_states: noisy latent (B, C_in, H, W), of any H and W that patches divide.
            encoder_hidden_states: text features (B, L, caption_channels).
            timestep: number, or (B,) of one stage.
            added_cond_kwargs: ``resolution`` (B, 2), height and width in pixels, and
                ``aspect_ratio`` (B, 1), of a network with use_additional_conditions.
            encoder_attention_mask: (B, L), 1 for valid tokens, or a bias (B, 1, L), 0 for them.

        Returns:
            ``sample`` (B, C_out, H, W), in a tuple where ``return_dict`` is False.
        """
        inputs = self.network_inputs(
            hidden_states,
            encoder_hidden_states,
            timestep,
            added_cond_kwargs,
            cross_attention_kwargs,
            attention_mask,
            encoder_attention_mask,
        )
        return self.output(self.denoise(**inputs), return_dict)


def valid_tokens(mask: Tensor | None) -> Tensor | None:
    """(B, L), nonzero for valid tokens, of such a mask or of a bias (B, 1, L), 0 for them."""
    return mask[:, 0] >= 0 if mask is not None and mask.ndim == 3 else mask

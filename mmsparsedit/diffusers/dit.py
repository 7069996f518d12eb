"""SparseDiT for diffusers' ``DiTPipeline``."""

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from mmsparsedit.models import SparseDiT

from .base import SparseTransformerModel, demand, refuse_unread


class SparseDiTTransformer2DModel(SparseTransformerModel):
    """``SparseDiT`` with the constructor's names and the forward signature of diffusers' DiT.

    Args:
        num_attention_heads, attention_head_dim: heads, and width of each.
        out_channels: in_channels, or twice that with a learned variance.
        sample_size: side of the latent that positions are computed for; inputs may have any.
        num_embeds_ada_norm: number of classes; the label of that number stands for "none".
            ``DiTPipeline`` guides with label 1000, whatever is set here.
        num_bottom, num_sdtm, num_top, block_counts, reinject_pos_embed, upsample: as of
            ``SparseDiT``; dense with ``num_bottom=0, num_sdtm=0``.
        prune: arguments of ``TimestepPruneScheduler``, e.g. ``dict(r_min=0.61, r_max=0.86)``; None
            reads the dense grid everywhere.
        network_kwargs: further arguments of ``SparseDiT``.
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
        num_embeds_ada_norm: int = 1000,
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
        self._hold(SparseDiT(**self.network_options()), prune)

    def network_options(self) -> dict[str, Any]:
        """Arguments of ``SparseDiT`` that this model's config stands for."""
        config = self.config
        return (
            self.shared_options(config)
            | dict(num_classes=config.num_embeds_ada_norm)
            | (config.network_kwargs or {})
        )

    def network_inputs(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        demand(timestep=timestep, class_labels=class_labels)
        refuse_unread(cross_attention_kwargs=cross_attention_kwargs)
        return self.staged(hidden_states, timestep, y=class_labels)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict eps, and the variance where learned.

        Args:
            hidden_states: noisy latent (B, C_in, H, W), of any H and W that patches divide.
            timestep: number, or (B,) of one stage.
            class_labels: (B,).

        Returns:
            ``sample`` (B, C_out, H, W), in a tuple where ``return_dict`` is False.
        """
        inputs = self.network_inputs(hidden_states, timestep, class_labels, cross_attention_kwargs)
        return self.output(self.denoise(**inputs), return_dict)

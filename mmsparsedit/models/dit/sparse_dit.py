"""SparseDiT: DiT whose layers read fewer tokens (SparseDiT, Sec. 3; DiT, Peebles and Xie 2023).

B batch, N = H * W dense tokens, C width.
"""

from torch import Tensor

from mmsparsedit.nn import FinalLayer, LabelEmbedder, SparseTransformer, sincos_pos_embed_2d
from mmsparsedit.registry import MODELS

from .layouts import AUTHORS, DIFFUSERS, DIT


@MODELS.register_module()
class SparseDiT(SparseTransformer):
    """Class-conditional diffusion transformer with a bottom, a sparse middle and a top.

    Args:
        num_classes: labels are 0 ... num_classes - 1; the null label of guidance is num_classes.
        diffusers_numerics: compute as diffusers' DiTTransformer2DModel does: frequencies of
            timesteps over 127 instead of 128, and 1e-5 instead of 1e-6 in the norm before the MLP.
            For weights that were trained there; DiT's own want False.
        base: arguments of ``SparseTransformer``.
    """

    layouts = (DIT, AUTHORS, DIFFUSERS)

    def __init__(
        self, *, num_classes: int = 1000, diffusers_numerics: bool = False, **base
    ) -> None:
        super().__init__(**base)
        self.num_classes = num_classes
        width = self.hidden_size
        self.y_embedder = LabelEmbedder(num_classes, width, self.class_dropout_prob > 0)
        self.register_buffer('pos_embed', sincos_pos_embed_2d(width, self.token_grid))
        self.build_layers()
        self.final_layer = FinalLayer(width, self.patch_size, self.out_channels)
        if diffusers_numerics:
            self.t_embedder.frequency_shift = 1
            for name, module in self.named_modules():
                if name.endswith('norm2'):
                    module.eps = 1e-5
        self.init_weights()

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latent (B, C_in, height, width).
            t: timesteps (B,), fractions allowed.
            y: labels (B,), num_classes for none.
            grid: sparse token grid (h, w) of the middle; None reads the dense grid everywhere.

        Returns:
            (B, C_out, height, width).
        """
        net = self.at_size(x.shape[-2:])
        x, c = net.embed(x, t, y)  # (B, N, C), (B, C)
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)  # (B, C_out, height, width)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.check_latent(x)
        c = self.t_embedder(t) + self.y_embedder(y)
        return self.x_embedder(x) + self.pos_embed, c

    def head(self, x: Tensor, c: Tensor) -> Tensor:
        return self.unpatchify(self.final_layer(x, c))

    def embedder_weights(self) -> list[Tensor]:
        return [self.y_embedder.embedding_table.weight, *super().embedder_weights()]

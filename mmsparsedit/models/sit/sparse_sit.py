"""SparseSiT: SiT whose layers read fewer tokens (SiT, Ma et al. 2024; SparseDiT, Sec. 3).

B batch, N = H * W dense tokens, C width.
"""

from torch import Tensor

from mmsparsedit.nn import FinalLayer, LabelEmbedder, SparseTransformer, sincos_pos_embed_2d
from mmsparsedit.registry import MODELS

from .layouts import SIT


@MODELS.register_module()
class SparseSiT(SparseTransformer):
    """DiT's network as SiT trains it: to predict the velocity of a straight path (RectifiedFlow).

    Two conventions differ and are translated here. SiT's time tau runs from noise (0) to data (1)
    and enters the embedding as it is; this package's t runs from data (0) to noise (T), so
    tau = 1 - t / T. SiT's velocity is data - noise, a rectified flow's here noise - data.

    Args:
        num_classes: labels are 0 ... num_classes - 1; the null label of guidance is num_classes.
        spare_channels: the last layer makes as many channels again, which nobody reads: the
            released checkpoints have them (SiT's ``learn_sigma=True``).
        num_timesteps: T, that of the diffusion process.
        base: arguments of ``SparseTransformer``; ``learn_sigma`` is False.
    """

    layouts = (SIT,)

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        spare_channels: bool = True,
        num_timesteps: int = 1000,
        **base,
    ) -> None:
        super().__init__(**{'learn_sigma': False, **base})
        if self.learn_sigma:
            raise ValueError(
                'SparseSiT predicts a velocity and no variance: leave learn_sigma out. The unread '
                'channels of released checkpoints are spare_channels=True.'
            )
        self.num_classes = num_classes
        self.num_timesteps = num_timesteps
        width = self.hidden_size
        self.y_embedder = LabelEmbedder(num_classes, width, self.class_dropout_prob > 0)
        self.register_buffer('pos_embed', sincos_pos_embed_2d(width, self.token_grid))
        self.build_layers()
        made = self.out_channels * (2 if spare_channels else 1)
        self.final_layer = FinalLayer(width, self.patch_size, made)
        self.init_weights()

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Predict the velocity noise - data.

        Args:
            x: noisy latent (B, C_in, height, width).
            t: timesteps (B,) from data (0) to noise (num_timesteps), fractions allowed.
            y: labels (B,), num_classes for none.
            grid: sparse token grid (h, w) of the middle; None reads the dense grid everywhere.

        Returns:
            (B, C_in, height, width).
        """
        net = self.at_size(x.shape[-2:])
        x, c = net.embed(x, t, y)  # (B, N, C), (B, C)
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)  # (B, C_in, height, width)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.check_latent(x)
        c = self.t_embedder(1 - t / self.num_timesteps) + self.y_embedder(y)
        return self.x_embedder(x) + self.pos_embed, c

    def head(self, x: Tensor, c: Tensor) -> Tensor:
        velocity = self.unpatchify(self.final_layer(x, c))  # (B, C_in, or twice that, ...)
        return -velocity[:, : self.out_channels]

    def embedder_weights(self) -> list[Tensor]:
        return [self.y_embedder.embedding_table.weight, *super().embedder_weights()]

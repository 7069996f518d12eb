"""SparseLatte: Latte whose layers read fewer positions and frames (SparseDiT, App. A.3).

Latte (Ma et al. 2024, variant 1) alternates layers in space, layer 0, 2, ..., and layers in time.

B clips, F frames, I images behind the frames (joint training), S = H * W positions, C width, p
patch size.
"""

from torch import Tensor

from mmsparsedit.nn import FinalLayer, LabelEmbedder
from mmsparsedit.registry import MODELS

from .factorised import ClipCondition, over_space
from .layouts import DIT, LATTE
from .video_transformer import VideoTransformer


@MODELS.register_module()
class SparseLatte(VideoTransformer):
    """Video diffusion transformer with a bottom, a sparse middle and a top.

    The timestep and the label are embedded and projected once per clip and shared by all its
    frames and positions, where the reference repeats them.

    Args:
        num_frames: F.
        num_classes: labels are 0 ... num_classes - 1, the null label of guidance is num_classes.
            None is the unconditional model of FaceForensics, SkyTimelapse and Taichi-HD.
        recover_order: see ``FactorisedSDTM``.
        base: further arguments of ``VideoTransformer`` and ``SparseTransformer``.
    """

    layouts = (LATTE, DIT)

    def __init__(self, *, num_classes: int | None = 101, **base) -> None:
        super().__init__(**base)
        self.num_classes = num_classes
        width = self.hidden_size
        self.y_embedder = None
        if num_classes is None:
            self.class_dropout_prob = 0.0
        else:
            self.y_embedder = LabelEmbedder(num_classes, width, self.class_dropout_prob > 0)
        self.build_tables()
        self.build_layers()
        self.final_layer = FinalLayer(width, self.patch_size, self.out_channels)
        self.init_weights()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        grid: tuple[int, int, int] | None = None,
        use_image_num: int = 0,
        y_image: Tensor | None = None,
    ) -> Tensor:
        """Predict eps, and the variance where learned.

        Args:
            x: noisy latents (B, F + I, C_in, height, width).
            t: timesteps (B,), fractions allowed; images share the timestep of their clip.
            y: labels (B,), num_classes for none; None for an unconditional model.
            grid: sparse token grid (f, h, w) of the middle; None reads the dense grid everywhere.
            use_image_num: I, of joint training on clips and single images: layers in space read
                them, layers in time do not.
            y_image: labels (B, I) of the images, of a model with classes.

        Returns:
            (B, F + I, C_out, height, width).
        """
        net = self.at_size(x.shape[-2:])
        x, c = net.embed(x, t, y, use_image_num, y_image)  # (B, F + I, S, C)
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)  # (B, F + I, C_out, height, width)

    def embed(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        use_image_num: int = 0,
        y_image: Tensor | None = None,
    ) -> tuple[Tensor, ClipCondition]:
        self.check_latent(x, self.num_frames + use_image_num)
        self._check_labels(y, use_image_num, y_image)
        tokens = self.x_embedder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, F + I, S, C)
        clip, images = self.t_embedder(t), None  # (B, C), (B, I, C)
        if y_image is not None:
            images = clip.unsqueeze(1) + self.y_embedder(y_image)
        if y is not None:
            clip = clip + self.y_embedder(y)
        return tokens + self.pos_embed, ClipCondition(clip, use_image_num, images)

    def head(self, x: Tensor, c: ClipCondition) -> Tensor:
        return self.unpatchify(over_space(self.final_layer, x, c))

    def _check_labels(self, y: Tensor | None, num_images: int, y_image: Tensor | None) -> None:
        if (y is None) != (self.num_classes is None):
            raise ValueError(
                f'labels y {"are missing" if y is None else "were given"}, num_classes of the '
                f'network is {self.num_classes}: an unconditional model takes no labels, others '
                'need them.'
            )
        if num_images and (y_image is None) != (self.num_classes is None):
            raise ValueError(
                f'labels y_image {"are missing" if y_image is None else "were given"} for '
                f'{num_images} images, num_classes of the network is {self.num_classes}: give '
                'labels (B, I) where there are classes, none otherwise.'
            )

    def embedder_weights(self) -> list[Tensor]:
        label = [] if self.y_embedder is None else [self.y_embedder.embedding_table.weight]
        return [*label, *super().embedder_weights()]

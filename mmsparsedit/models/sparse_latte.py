"""SparseLatte: Latte whose layers read fewer positions and frames (SparseDiT, App. A.3).

The whole network, top to bottom. Latte (Ma et al. 2024, variant 1) alternates layers in space,
layer 0, 2, ..., and layers in time; it is the case without bottom and middle:
``num_bottom=0, num_sdtm=0, num_top=depth``.

B clips, F frames, I images behind the frames (joint training), S = H * W positions, C width, p
patch size.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mmsparsedit.nn import (
    FinalLayer,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    TransformerBlock,
    check_grid,
    sincos_pos_embed_1d,
    sincos_pos_embed_2d,
)
from mmsparsedit.nn.factorised import ClipCondition, add_to_frames, over_space, over_time
from mmsparsedit.nn.step_cache import MiddleResidual, run_middle
from mmsparsedit.registry import MODELS


@MODELS.register_module()
class SparseLatte(nn.Module):
    """Video diffusion transformer with a bottom, a sparse middle and a top.

    Layer i of the depth keeps the weights of layer i of Latte (``named_layers``); the timestep and
    the label are embedded and projected once per clip and shared by all its frames and positions,
    where the reference repeats them.

    Args:
        input_size: side, or (height, width), of a frame's latent.
        num_frames: F.
        num_classes: labels are 0 ... num_classes - 1, the null label of guidance is num_classes.
            None is the unconditional model of FaceForensics, SkyTimelapse and Taichi-HD.
        class_dropout_prob: share of labels that training drops; an unconditional model has none.
        num_bottom, num_sdtm, num_top: layers, modules, layers. Bottom and top are whole pairs of a
            layer in space and one in time.
        bottom_block, sdtm: registered types, built with hidden_size, num_heads, mlp_ratio.
        reinject_pos_embed: add the position table again after each recovery in space and the frame
            table after each recovery in time (paper, Sec. 4.1).
        upsample: of the recovery, ``'nearest'`` or ``'bilinear'``.
        recover_order: see ``FactorisedSDTM``.

    Other arguments are those of ``SparseDiT``.
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        num_frames: int = 16,
        hidden_size: int = 1152,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int | None = 101,
        class_dropout_prob: float = 0.1,
        learn_sigma: bool = True,
        num_bottom: int = 2,
        num_sdtm: int = 4,
        num_top: int = 2,
        bottom_block: dict | None = None,
        sdtm: dict | None = None,
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
        recover_order: str = 'temporal_first',
    ) -> None:
        super().__init__()
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f'input_size {(height, width)} is not a multiple of patch_size {patch_size}.'
            )
        if num_frames < 1:
            raise ValueError(f'num_frames must be at least 1, got {num_frames}.')
        if not 0 <= class_dropout_prob < 1:
            raise ValueError(f'class_dropout_prob must be in [0, 1), got {class_dropout_prob}.')
        if num_bottom % 2 or num_top % 2:
            raise ValueError(
                f'num_bottom {num_bottom} and num_top {num_top} must be even: layers in space and '
                'in time come in pairs.'
            )
        if num_sdtm and not num_bottom:
            raise ValueError(
                'num_bottom 0 with SDTMs: the frame table enters before the first layer in time, '
                'which has to see all frames and positions. Set num_bottom to 2 or more.'
            )
        self.input_size = (height, width)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.out_channels = in_channels * 2 if learn_sigma else in_channels
        self.num_frames = num_frames
        self.hidden_size = hidden_size
        self.num_classes = num_classes
        self.class_dropout_prob = 0.0 if num_classes is None else class_dropout_prob
        self.learn_sigma = learn_sigma
        self.reinject_pos_embed = reinject_pos_embed
        self.recover_order = recover_order
        self.data_shape = (num_frames, in_channels, height, width)
        self.token_grid = (num_frames, height // patch_size, width // patch_size)

        self.x_embedder = PatchEmbed(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.y_embedder = None
        if num_classes is not None:
            self.y_embedder = LabelEmbedder(num_classes, hidden_size, class_dropout_prob > 0)
        self.register_buffer('pos_embed', sincos_pos_embed_2d(hidden_size, self.token_grid[1:]))
        frame_table = sincos_pos_embed_1d(hidden_size, np.arange(num_frames))  # (F, C)
        self.register_buffer('temp_embed', torch.from_numpy(frame_table).float().unsqueeze(0))

        shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
        bottom_block = {**shape, **(bottom_block or dict(type='PoolingFormerBlock'))}
        sdtm = {
            **shape,
            'upsample': upsample,
            'recover_order': recover_order,
            **(sdtm or dict(type='FactorisedSDTM')),
        }
        self.bottom = nn.ModuleList(MODELS.build(bottom_block) for _ in range(num_bottom))
        self.middle = nn.ModuleList(MODELS.build(sdtm) for _ in range(num_sdtm))
        self.top = nn.ModuleList(TransformerBlock(**shape) for _ in range(num_top))
        self.final_layer = FinalLayer(hidden_size, patch_size, self.out_channels)
        self.init_weights()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        grid: tuple[int, int, int] | None = None,
        use_image_num: int = 0,
        y_image: Tensor | None = None,
        kept: MiddleResidual | None = None,
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
            kept: of a step cache, see ``run_middle``.

        Returns:
            (B, F + I, C_out, height, width).
        """
        self._check_inputs(x, y, use_image_num, y_image)
        grid = self._sparse_grid(grid)
        pos_embed = self.pos_embed if self.reinject_pos_embed else None
        temp_embed = self.temp_embed if self.reinject_pos_embed else None

        tokens = self.x_embedder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, F + I, S, C)
        tokens = tokens + self.pos_embed
        condition = self._condition(t, y, use_image_num, y_image)
        for i, block in enumerate(self.bottom):
            tokens = self._layer(i, block, tokens, condition)
        tokens = run_middle(
            self.middle, tokens, kept, condition, grid, self.token_grid, pos_embed, temp_embed
        )
        for i, block in enumerate(self.top, start=len(self.bottom)):
            tokens = self._layer(i, block, tokens, condition)
        out = over_space(self.final_layer, tokens, condition)  # (B, F + I, S, p * p * C_out)
        return self.unpatchify(out)  # (B, F + I, C_out, height, width)

    def _layer(self, i: int, block: nn.Module, x: Tensor, condition: ClipCondition) -> Tensor:
        """Even layers work in space, odd ones in time; layer 1 is told which frame is which."""
        if i % 2 == 0:
            return over_space(block, x, condition)
        if i == 1:
            x = add_to_frames(x, self.temp_embed, condition.num_images)
        return over_time(block, x, condition)

    def _condition(
        self, t: Tensor, y: Tensor | None, num_images: int, y_image: Tensor | None
    ) -> ClipCondition:
        c = self.t_embedder(t)  # (B, C)
        if self.y_embedder is None:
            return ClipCondition(c, num_images)
        images = None if y_image is None else c.unsqueeze(1) + self.y_embedder(y_image)
        return ClipCondition(c + self.y_embedder(y), num_images, images)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, F, S, p * p * C_out), laid out (row, column, channel) -> (B, F, C_out, ...)."""
        _, h, w = self.token_grid
        p = self.patch_size
        x = x.unflatten(-1, (p, p, self.out_channels)).unflatten(2, (h, w))
        return x.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers in the order of the pretrained model as (name, block).

        Layer i holds the weights of Latte's layer i. In an SDTM that is not the order in which
        they run when time is recovered first.
        """
        for i, block in enumerate(self.bottom):
            yield f'bottom.{i}', block
        for m, module in enumerate(self.middle):
            for name, block in module.layers():
                yield f'middle.{m}.{name}', block
        for i, block in enumerate(self.top):
            yield f'top.{i}', block

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, for counting and timing."""
        inputs = dict(
            x=torch.zeros(batch_size, *self.data_shape, device=device),
            t=torch.zeros(batch_size, device=device),
        )
        if self.num_classes is not None:
            inputs['y'] = torch.zeros(batch_size, dtype=torch.long, device=device)
        return inputs

    def reference_extra_macs(self, grid: tuple[int, int, int] | None = None) -> dict[str, int]:
        """MACs per clip beyond this code's, by name, in the paper's way of counting.

        The numbers are the same: the reference projects the condition for every frame in space and
        every position in time, and the authors' layers map values before taking their mean, take
        it by a product with a matrix of ones, and upsample before W1.
        """
        F, S, C = self.num_frames, math.prod(self.token_grid[1:]), self.hidden_size
        f, *space = self._sparse_grid(grid)
        s = math.prod(space)
        pairs, modules = len(self.bottom) // 2, len(self.middle)
        if self.recover_order == 'temporal_first':
            upsampled, recovered = (F - f) * s + (S - s) * F, F + s
        else:
            upsampled, recovered = (S - s) * f + (F - f) * S, f + S
        sparse = sum(len(module.sparse) // 2 for module in self.middle)
        # rows of a pair of layers: frames in space, positions in time; one is projected here
        rows = (pairs + len(self.top) // 2) * (F + S - 2)
        rows += modules * (F + s - 2 + recovered - 2) + sparse * (f + s - 2)
        return {
            'values before mean': pairs * 2 * (F * (S - 1) + S * (F - 1)) * C**2,
            'merge after upsampling': modules * upsampled * C**2,
            'modulation per frame and position': rows * 6 * C**2 + (F - 1) * 2 * C**2,
            'ones product': pairs * (F * S**2 + S * F**2) * C,
        }

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.named_layers())

    def _sparse_grid(self, grid: tuple[int, ...] | None) -> tuple[int, ...]:
        if grid is None:
            return self.token_grid
        if not self.middle:
            raise ValueError(
                f'grid {tuple(grid)} was given, but the network has no SDTM that could use it: '
                'call a dense model without grid, or set num_sdtm.'
            )
        return check_grid(grid, self.token_grid)

    def _check_inputs(
        self, x: Tensor, y: Tensor | None, num_images: int, y_image: Tensor | None
    ) -> None:
        expected = (self.num_frames + num_images, *self.data_shape[1:])
        if x.shape[1:] != expected:
            raise ValueError(
                f'latents of shape {tuple(x.shape)}: expected (B, {", ".join(map(str, expected))}) '
                f'for {self.num_frames} frames and {num_images} images. Set num_frames, input_size '
                'and in_channels of the network and use_image_num, or use data of that size.'
            )
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
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        for _, block in self.named_layers():
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            if hasattr(block, 'init_merge'):
                block.init_merge()
        nn.init.zeros_(self.final_layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

"""The contract of a network: what every sparse transformer has, and what others rely on.

A sparse transformer is a dense one read along another route: every layer keeps its index and its
weights, only what its attention reads changes. A base model is one subclass with its embedders, its
last layer and its registered blocks; the dense model is the case without bottom and middle,
``num_bottom=0, num_sdtm=0, num_top=depth``.

B batch, N dense tokens, C width, p patch size.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .embeddings import PatchEmbed, TimestepEmbedder, sincos_pos_embed_2d
from .resample import Grid, check_grid
from .sdtm import layers_of


class SparseTransformer(nn.Module):
    """Diffusion transformer with a bottom, a sparse middle and a top (SparseDiT, Sec. 3).

    Bottom layers mix tokens by a mean, each SDTM of the middle drops to the sparse grid and
    returns, top layers are the dense model's.

    A subclass makes its embedders, calls ``build_layers``, makes ``final_layer``, calls
    ``init_weights``, and defines ``embed``, ``head`` and ``forward``; ``forward`` is

        net = self.at_size(x.shape[-2:])    # itself, for data of the size it was built for
        x, c = net.embed(x, t, ...)         # tokens (B, N, C), and what conditions the layers
        x = net.run_bottom(x, c)
        x = net.run_middle(x, c, grid=grid)
        x = net.run_top(x, c)
        return net.head(x, c)               # shaped like the data

    whose parts may also be called one by one (a step cache runs around the middle). A subclass with
    other positions defines ``positions``; one for a single size leaves ``at_size`` out.

    What others rely on:
        data_shape: of one sample, (C_in, height, width) or (F, C_in, height, width): generators.
        token_grid: dense grid (H, W) or (F, H, W): generators, prune schedules.
        in_channels, out_channels, learn_sigma: guidance, the diffusion process.
        num_classes: labels are 0 ... num_classes - 1 and num_classes is the null label; None where
            there are no labels. class_dropout_prob: share of conditions that training drops, 0
            where there is no null condition: generators.
        bottom, middle, top: lists of layers, modules, layers. ``named_layers``: all layers in
            depth order: checkpoints, sharding, recomputation, compilation.
        final_layer: kept in float32 where the rest is not: acceleration.
        read_once: what a trajectory computes of its condition beforehand: sampling, counting.
        example_inputs: counting, timing.
        static_shapes: False where shapes depend on what the inputs hold: no compilation.
        layouts: checkpoint layouts that are read into and written from it, beside this package's
            own (``mmsparsedit.models.checkpoints.Layout``).
        init_weights: start of a training from nothing.

    Args:
        input_size: side, or (height, width), of the latent.
        patch_size: p.
        class_dropout_prob: share of conditions that training drops (the generator does it); 0
            builds no embedding of the null label.
        learn_sigma: predict, besides eps, the interpolation of the variance: 2 * in_channels out.
        num_bottom, num_sdtm, num_top: layers, modules, layers.
        bottom_block: registered type, built with hidden_size, num_heads, mlp_ratio.
        sdtm: registered type, built with these and block, upsample; a list of ``num_sdtm`` configs
            gives each module its own, such as its ``block_counts``.
        reinject_pos_embed: add the position table again after each recovery (paper, Sec. 4.1);
            the authors' released code does not.
        upsample: of the recovery, ``'nearest'`` or ``'bilinear'``.
    """

    block_type: ClassVar[str] = 'TransformerBlock'  # registered type of the top, and of SDTMs
    pooling_type: ClassVar[str] = 'PoolingFormerBlock'
    layouts: ClassVar[tuple] = ()
    num_classes: int | None = None
    static_shapes = True

    pos_embed: Tensor  # (1, N, C), of one frame
    final_layer: nn.Module

    def __init__(
        self,
        *,
        input_size: int | tuple[int, int] = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        learn_sigma: bool = True,
        num_bottom: int = 2,
        num_sdtm: int = 4,
        num_top: int = 2,
        bottom_block: dict | None = None,
        sdtm: dict | Sequence[dict] | None = None,
        reinject_pos_embed: bool = True,
        upsample: str = 'nearest',
    ) -> None:
        super().__init__()
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f'input_size {(height, width)} is not a multiple of patch_size {patch_size}.'
            )
        if not 0 <= class_dropout_prob < 1:
            raise ValueError(f'class_dropout_prob must be in [0, 1), got {class_dropout_prob}.')
        self.input_size = (height, width)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.out_channels = in_channels * 2 if learn_sigma else in_channels
        self.hidden_size = hidden_size
        self.class_dropout_prob = class_dropout_prob
        self.learn_sigma = learn_sigma
        self.reinject_pos_embed = reinject_pos_embed
        self.data_shape = (in_channels, height, width)
        self.token_grid: Grid = (height // patch_size, width // patch_size)

        shape = dict(hidden_size=hidden_size, num_heads=num_heads, mlp_ratio=mlp_ratio)
        modules = dict(type='SDTM', block=dict(type=self.block_type), upsample=upsample)
        each = [sdtm or {}] * num_sdtm if sdtm is None or isinstance(sdtm, Mapping) else list(sdtm)
        if len(each) != num_sdtm:
            raise ValueError(
                f'sdtm lists {len(each)} modules, num_sdtm is {num_sdtm}: give one config for each '
                'module, or a single one for all.'
            )
        self._segments = dict(
            bottom=[{'type': self.pooling_type, **shape, **(bottom_block or {})}] * num_bottom,
            middle=[{**shape, **modules, **own} for own in each],
            top=[dict(type=self.block_type, **shape)] * num_top,
        )
        self.x_embedder = PatchEmbed(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self._other_sizes: dict[tuple[int, int], SparseTransformer] = {}

    def build_layers(self) -> None:
        """Make ``bottom``, ``middle`` and ``top``."""
        for name, layers in self._segments.items():
            self.add_module(name, nn.ModuleList(MODELS.build(layer) for layer in layers))

    # -- other sizes ----------------------------------------------------------------------------

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table (1, h * w, C) float32 of a token grid (h, w) other than the built one.

        The span of the built size, walked in other steps, as diffusers does.
        """
        scale = tuple(new / own for new, own in zip(grid, self.token_grid[-2:], strict=True))
        return sincos_pos_embed_2d(self.hidden_size, grid, scale)

    def at_size(self, size: tuple[int, int]) -> 'SparseTransformer':
        """The network for data of (height, width): other positions, the same weights.

        The network itself for its own ``input_size``. Another size gets a view, kept for the next
        call, that shares every module and parameter and differs in ``token_grid``, ``input_size``,
        ``data_shape`` and ``pos_embed``.
        """
        size = tuple(size)
        if size == self.input_size:
            return self
        return self._at_other_size(size)

    @torch.compiler.disable  # made once for a size, outside of what is compiled
    def _at_other_size(self, size: tuple[int, int]) -> 'SparseTransformer':
        view = self._other_sizes.get(size)
        if view is None:
            if any(side % self.patch_size or side < 1 for side in size):
                raise ValueError(
                    f'latent of height and width {size}: expected (B, '
                    f'{", ".join(map(str, self.data_shape))}), or another height and width that '
                    f'are multiples of patch_size {self.patch_size}.'
                )
            grid = (size[0] // self.patch_size, size[1] // self.patch_size)
            table = self.positions(grid)
            view = copy.copy(self)  # parameters and modules are the same dictionaries
            view._buffers = {**self._buffers, 'pos_embed': table}
            view._other_sizes = {}
            view.input_size = size
            view.data_shape = (*self.data_shape[:-2], *size)
            view.token_grid = (*self.token_grid[:-2], *grid)
            self._other_sizes[size] = view
        for name, own in self._buffers.items():
            view._buffers[name] = view._buffers[name].to(own) if name == 'pos_embed' else own
        return view

    # -- forward --------------------------------------------------------------------------------

    def embed(self, x: Tensor, t: Tensor, *condition: Any) -> tuple[Tensor, Any]:
        """Tokens (B, N, C), positions added, and the condition that every layer takes."""
        raise NotImplementedError

    def head(self, x: Tensor, c: Any) -> Tensor:
        """Tokens (B, N, C) -> data (B, C_out, height, width)."""
        raise NotImplementedError

    def run_layer(self, i: int, layer: nn.Module, x: Tensor, c: Any) -> Tensor:
        """Layer ``i`` of bottom and top, counted from the bottom as if there were no middle."""
        return layer(x, c)

    def run_bottom(self, x: Tensor, c: Any) -> Tensor:
        """PoolingFormers on all tokens (Eq. 1)."""
        for i, layer in enumerate(self.bottom):
            x = self.run_layer(i, layer, x, c)
        return x

    def run_middle(self, x: Tensor, c: Any, *, grid: Grid | None) -> Tensor:
        """SDTMs: dense tokens to the sparse ``grid`` and back (Eq. 2 to 4).

        ``grid`` None is the dense grid: every layer reads all tokens. A grid of no tokens, (0, 0),
        leaves the middle out: ``x`` itself.
        """
        grid = self.sparse_grid(grid)
        for module in self.middle if any(grid) else ():
            x = module(x, c, grid=grid, dense_grid=self.token_grid, **self.reinjected())
        return x

    def run_top(self, x: Tensor, c: Any) -> Tensor:
        """The dense model's layers on all tokens."""
        for i, layer in enumerate(self.top, start=len(self.bottom)):
            x = self.run_layer(i, layer, x, c)
        return x

    def steps(self, grid: Grid | None = None) -> list[Callable[[Tensor, Any], Tensor]]:
        """Bottom layers, SDTMs and top layers as they run: ``step(x, c)``, dense tokens both ways.

        For others who put something around each (diffusers' hooks); ``grid`` as in ``run_middle``.
        """
        middle = dict(grid=self.sparse_grid(grid), dense_grid=self.token_grid, **self.reinjected())
        first = len(self.bottom)
        return [
            *(partial(self.run_layer, i, layer) for i, layer in enumerate(self.bottom)),
            *(partial(module, **middle) for module in self.middle if any(middle['grid'])),
            *(partial(self.run_layer, i, layer) for i, layer in enumerate(self.top, first)),
        ]

    def reinjected(self) -> dict[str, Tensor | None]:
        """Position tables that an SDTM adds after its recoveries (paper, Sec. 4.1)."""
        return dict(pos_embed=self.pos_embed if self.reinject_pos_embed else None)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, ..., N, p * p * C), laid out (row, column, channel) -> (B, ..., C, height, width)."""
        p = self.patch_size
        x = x.unflatten(-1, (p, p, -1)).unflatten(-4, self.token_grid[-2:])
        x = x.movedim(-1, -5).transpose(-3, -2)  # (B, ..., C, h, p, w, p)
        return x.flatten(-2).flatten(-3, -2)

    def read_once(self, condition: dict) -> dict:
        """Arguments of ``forward`` beside x, t and grid, for many calls with the same ones.

        A subclass computes here what depends on neither x nor t.
        """
        return condition

    # -- what others ask ------------------------------------------------------------------------

    def sparse_grid(self, grid: Grid | None) -> Grid:
        """``grid`` if the middle can use it, the dense grid for None; ValueError otherwise."""
        if grid is None:
            return self.token_grid
        if not self.middle:
            raise ValueError(
                f'grid {tuple(grid)} was given, but the network has no SDTM that could use it: '
                'call a dense model without grid, or set num_sdtm.'
            )
        return check_grid(grid, self.token_grid)

    def check_latent(self, x: Tensor, frames: int | None = None) -> None:
        """ValueError if ``x`` is not (B, [frames,] C_in, height, width)."""
        expected = self.data_shape if frames is None else (frames, *self.data_shape[1:])
        if x.shape[1:] != expected:
            raise ValueError(
                f'latent of shape {tuple(x.shape)}: expected (B, {", ".join(map(str, expected))}). '
                'Set input_size and in_channels (and num_frames) of the network, or use data of '
                'that size.'
            )

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers as (name, layer): layer i holds the weights of layer i of the dense model.

        In an SDTM of a video model that is not the order in which they run.
        """
        yield from layers_of(self, ('bottom',))
        for m, module in enumerate(self.middle):
            for name, layer in module.layers():
                yield f'middle.{m}.{name}', layer
        yield from layers_of(self, ('top',))

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.named_layers())

    def example_inputs(self, batch_size: int = 1, device: torch.device | str = 'cpu') -> dict:
        """Inputs of ``forward`` of the right shapes, by name, for counting and timing."""
        inputs = dict(
            x=torch.zeros(batch_size, *self.data_shape, device=device),
            t=torch.zeros(batch_size, device=device),
        )
        if self.num_classes is not None:
            inputs['y'] = torch.zeros(batch_size, dtype=torch.long, device=device)
        return inputs

    @torch.no_grad()
    def init_weights(self) -> None:
        """DiT's initialisation: Xavier linears, small embedders; then what each layer starts as.

        Modulation and last layer are zero; W1 = 0, W2 = I.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.x_embedder.proj
        nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
        nn.init.zeros_(projection.bias)
        for weight in self.embedder_weights():
            nn.init.normal_(weight, std=0.02)
        for _, layer in self.named_layers():
            layer.init_weights()
        self.final_layer.init_weights()

    def embedder_weights(self) -> list[Tensor]:
        """Weights that start normal with a standard deviation of 0.02."""
        return [self.t_embedder.mlp[0].weight, self.t_embedder.mlp[2].weight]

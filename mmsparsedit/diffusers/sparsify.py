"""From a dense transformer of diffusers to a sparse one with its weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    DiTTransformer2DModel,
    LatteTransformer3DModel,
    PixArtTransformer2DModel,
)
from torch import nn

from mmsparsedit.models import load_pretrained

from .base import SparseTransformerModel
from .dit import SparseDiTTransformer2DModel
from .latte import SparseLatteTransformer3DModel
from .pixart import SparsePixArtTransformer2DModel

_SAME = ('num_attention_heads', 'attention_head_dim', 'in_channels', 'sample_size', 'patch_size')
_SPARSE = {
    DiTTransformer2DModel: (SparseDiTTransformer2DModel, ('num_embeds_ada_norm',)),
    LatteTransformer3DModel: (
        SparseLatteTransformer3DModel,
        ('video_length', 'caption_channels'),
    ),
    PixArtTransformer2DModel: (
        SparsePixArtTransformer2DModel,
        ('interpolation_scale', 'use_additional_conditions', 'caption_channels'),
    ),
}
_COMPUTED = dict(
    activation_fn='gelu-approximate',
    attention_bias=True,
    dropout=0.0,
    norm_elementwise_affine=False,
)
_COMPUTED_BY = {
    DiTTransformer2DModel: dict(upcast_attention=False),
    LatteTransformer3DModel: dict(norm_type='ada_norm_single', norm_eps=1e-6),
    PixArtTransformer2DModel: dict(upcast_attention=False),
}


@torch.no_grad()
def sparsify(
    model: nn.Module | DiffusionPipeline,
    prune: Mapping | None,
    *,
    num_bottom: int | None = None,
    num_sdtm: int | None = None,
    num_top: int | None = None,
    block_counts: Sequence[int] | None = None,
    **options: Any,
) -> SparseTransformerModel | DiffusionPipeline:
    """The sparse model that continues a dense one: layer i of the one gets the weights of layer i.

    Bottom layers keep V of their attention; merges start at W1 = 0, W2 = I (paper, Sec. 3.3). It is
    the start of a fine-tuning, not yet a model: PoolingFormers and pruned tokens are new to the
    weights.

    A pipeline gives a new pipeline of the same parts with another transformer.

    diffusers' DiT departs from DiT in two points: its timestep frequencies are spaced over 127
    steps instead of 128, and its second norm adds 1e-5 instead of 1e-6. Its released weights are
    DiT's own, so the sparse model computes as DiT; ``network_kwargs=dict(diffusers_numerics=True)``
    makes it compute as diffusers does, for weights that were trained there.

    Args:
        model: ``DiTTransformer2DModel``, ``PixArtTransformer2DModel``, ``LatteTransformer3DModel``,
            or a pipeline with one.
        prune: arguments of ``TimestepPruneScheduler``, e.g. ``dict(r_min=0.61, r_max=0.86)``.
        num_bottom, num_top: layers, by default 2; of Latte, whose layers in space and in time count
            one by one, 4.
        num_sdtm: modules; by default as many as fill the depth.
        block_counts: layers of a module of images, by default (1, 3, 1, 1). One of a video has
            ``num_sparse`` (2) and four more.
        options: further arguments of the sparse class, e.g. ``reinject_pos_embed=False``.

    Raises:
        ValueError: another model; a depth that the segments do not add up to; a dense model that
            computes something else (activation, dropout).
    """
    if isinstance(model, DiffusionPipeline):
        pipeline = copy.copy(model)
        pipeline.register_modules(
            transformer=sparsify(
                model.transformer,
                prune,
                num_bottom=num_bottom,
                num_sdtm=num_sdtm,
                num_top=num_top,
                block_counts=block_counts,
                **options,
            )
        )
        return pipeline
    if type(model) not in _SPARSE:
        raise ValueError(
            f'{type(model).__name__} has no sparse counterpart: expected '
            f'{" or ".join(cls.__name__ for cls in _SPARSE)}, or a pipeline with one.'
        )
    sparse_class, own = _SPARSE[type(model)]
    config = model.config
    for name, expected in (_COMPUTED | _COMPUTED_BY[type(model)]).items():
        if config[name] != expected:
            raise ValueError(
                f'{name} of the dense model is {config[name]!r}; the sparse one computes '
                f'{expected!r}: its weights would mean something else.'
            )
    depth, ends, video = config.num_layers, 2, sparse_class is SparseLatteTransformer3DModel
    if video:
        if block_counts is not None:
            raise ValueError(
                f'block_counts {tuple(block_counts)}: a module of a video has four layers and '
                'num_sparse more. Give num_sparse.'
            )
        depth, ends = 2 * depth, 4
        each = options.get('num_sparse', 2) + 4
    else:
        counts = (1, 3, 1, 1) if block_counts is None else tuple(block_counts)
        options['block_counts'], each = counts, sum(counts)
    num_bottom = ends if num_bottom is None else num_bottom
    num_top = ends if num_top is None else num_top
    if num_sdtm is None:
        num_sdtm = _fill(depth, num_bottom, num_top, each)
    sparse = sparse_class(
        **{name: config[name] for name in (*_SAME, *own)},
        out_channels=model.out_channels,
        num_bottom=num_bottom,
        num_sdtm=num_sdtm,
        num_top=num_top,
        prune=None if prune is None else dict(prune),
        **options,
    )
    load_pretrained(sparse.network, model.state_dict(), source='diffusers')
    first = next(model.parameters())
    sparse.network.to(first.device, first.dtype)
    return sparse.train(model.training)


def _fill(depth: int, num_bottom: int, num_top: int, each: int) -> int:
    middle = depth - num_bottom - num_top
    if middle < 0 or middle % each:
        raise ValueError(
            f'{depth} layers without bottom and top leave {middle} for SDTMs of {each}: choose '
            'num_bottom, num_top and the layers of a module so that they add up, or num_sdtm.'
        )
    return middle // each

"""From a dense transformer of diffusers to a sparse one with its weights."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    DiTTransformer2DModel,
    LatteTransformer3DModel,
    PixArtTransformer2DModel,
)
from torch import nn

from mmsparsedit.models import fitting, load_pretrained
from mmsparsedit.models.distillation import load_teacher

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
    calibration: Sequence[Mapping[str, Any]] | None = None,
    **options: Any,
) -> SparseTransformerModel | DiffusionPipeline:
    """The sparse model that continues a dense one: layer i of the one gets the weights of layer i.

    Bottom layers keep V of their attention; merges start at W1 = 0, W2 = I (paper, Sec. 3.3).
    Where ``calibration`` is given, both are fitted to the dense model. It is the start of a
    fine-tuning, not yet a model: PoolingFormers and pruned tokens are new to the weights.

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
        calibration: calls of the dense transformer, as ``recorded_calls`` collects them;
            ``fit_start`` tells how well they fit.
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
                calibration=calibration,
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
    if calibration is not None:
        fit_start(sparse, model, calibration)
    return sparse.train(model.training)


@contextmanager
def recorded_calls(transformer: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Collect the arguments of each call of a transformer: calibration without a data set.

    >>> with recorded_calls(dense.transformer) as calls:
    ...     dense('a wooden boat on a calm lake')
    >>> sparse = sparsify(dense, prune=dict(r_min=0.61, r_max=0.86), calibration=calls)
    """
    calls: list[dict[str, Any]] = []
    signature = inspect.signature(type(transformer).forward)

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(signature.bind(module, *args, **kwargs).arguments)
        for name in ('self', 'return_dict'):
            given.pop(name, None)
        calls.append(given)

    handle = transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def fit_start(
    sparse: SparseTransformerModel, dense: nn.Module, calls: Sequence[Mapping[str, Any]]
) -> list[fitting.Fitted]:
    """Fit what ``sparse`` has of its own to the dense model that it came from.

    The projections of its PoolingFormers, its merges and its last linear map
    (``mmsparsedit.models.fit_start``).

    Args:
        sparse: from ``sparsify``; these maps of it are replaced.
        dense: the transformer that it came from.
        calls: arguments of ``forward``, each with timesteps of one stage.

    Returns:
        The relative error of each map, before and fitted.

    Raises:
        ValueError: no schedule; calls that leave out a stage of it.
    """
    if sparse.prune is None:
        raise ValueError('a fitted start needs the grids of a schedule: set prune.')
    net = sparse.network
    batches = [sparse.network_inputs(**call) for call in calls]
    sizes = {batch['x'].shape[-2:] for batch in batches}
    for size in sizes or [net.input_size]:
        stages = sparse.prune.for_grid(net.at_size(size).token_grid).stages
        met = {batch['grid'] for batch in batches if batch['x'].shape[-2:] == size}
        if missing := {stage.grid for stage in stages} - met:
            raise ValueError(
                f'{len(calls)} calls to calibrate with leave out the grids {sorted(missing)} of '
                f'the schedule: draw with more steps, 20 are usual.'
            )
    options = dict(type=type(net).__name__, **sparse.network_options())
    teacher = load_teacher(options, net.depth, dense.state_dict(), 'diffusers')
    first = next(net.parameters())
    return fitting.fit_start(net, teacher.to(first.device, first.dtype), batches)


def _fill(depth: int, num_bottom: int, num_top: int, each: int) -> int:
    middle = depth - num_bottom - num_top
    if middle < 0 or middle % each:
        raise ValueError(
            f'{depth} layers without bottom and top leave {middle} for SDTMs of {each}: choose '
            'num_bottom, num_top and the layers of a module so that they add up, or num_sdtm.'
        )
    return middle // each

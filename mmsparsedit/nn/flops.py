"""Exact multiply-accumulate counts of a network (fvcore's counter, exact handles).

One MAC is one multiply and one add; the "FLOPs" of the SparseDiT paper are GMACs. Counted: linear
maps, convolutions, matrix products and both products of attention, fused or not. Not counted:
norms, activations, softmax, pooling, additions. An operation in neither list is refused rather
than skipped; ``register_cost`` adds one.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .meta import KnownShapes, on_meta
from .sparse_transformer import SparseTransformer

PARTS = ('attention', 'qkv', 'projection', 'mlp', 'merge', 'modulation', 'rest')

_NOT_COUNTED = frozenset(
    f'aten::{name}'
    for name in (
        '__and__ __or__ _to_copy adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d '
        'add add_ amax amin any arange bitwise_not cat chunk clamp clone constant_pad_nd '
        'contiguous copy_ cos detach div dropout embedding eq exp expand expand_as fill_ '
        'flatten floor_divide full gather ge gelu gt index index_put_ index_select layer_norm '
        'le log logical_not lt masked_fill masked_fill_ masked_select max mean min movedim mul '
        'narrow ne neg new_zeros nonzero ones ones_like permute pow repeat repeat_interleave '
        'reshape rsqrt rsub scalar_tensor select sigmoid silu sin slice softmax split '
        'split_with_sizes sqrt squeeze stack sub sum tile to transpose unbind unflatten '
        'unsqueeze upsample_bilinear2d upsample_linear1d upsample_nearest1d '
        'upsample_nearest2d upsample_nearest3d upsample_trilinear3d view where zeros '
        'zeros_like'
    ).split()
)

Handle = Callable[[list, list], int | Counter]
_REGISTERED: dict[str, Handle | None] = {}


def register_cost(operation: str, macs: Handle | None) -> None:
    """Tell the counter what an operation costs.

    Args:
        operation: as the error of ``count_macs`` names it, e.g. ``'aten::rms_norm'``.
        macs: ``macs(inputs, outputs)`` of one call, values of the traced graph whose shapes
            ``fvcore.nn.jit_handles.get_shape`` gives; None for an operation without multiply-adds.
    """
    _REGISTERED[operation] = macs


@dataclass(frozen=True)
class MacCount:
    """MACs of one forward pass of the given batch."""

    total: int
    parts: dict[str, int]  # keys PARTS; they add up to the total

    @property
    def gmacs(self) -> float:
        return self.total / 1e9


class _Call(nn.Module):
    """The network with its inputs as positional tensors, which tracing needs."""

    def __init__(self, network: nn.Module, names: list[str], fixed: dict) -> None:
        super().__init__()
        self.network, self._names, self._fixed = network, names, fixed

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.network(**dict(zip(self._names, tensors, strict=True)), **self._fixed)


class _Once(_Call):
    """What the network reads once; its inputs likewise."""

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        read = self.network.read_once(dict(zip(self._names, tensors, strict=True)))
        return [leaf for leaf in tree_leaves(read) if isinstance(leaf, Tensor)]


def count_macs(
    network: nn.Module, grid: tuple[int, ...] | None = None, batch_size: int = 1
) -> MacCount:
    """MACs of ``network`` at one token grid, counted on the meta device: nothing is computed.

    Args:
        network: has ``example_inputs(batch_size, device)``.
        grid: sparse token grid; None for none.

    Raises:
        ValueError: the network uses an operation that has no known cost.
    """
    return _count(network, network.example_inputs(batch_size, 'meta'), grid, _Call)


def count_read_once(network: nn.Module) -> int:
    """MACs of ``read_once`` for one sample: what a trajectory computes once, not in every call."""
    if getattr(type(network), 'read_once', None) in (None, SparseTransformer.read_once):
        return 0
    inputs = network.example_inputs(1, 'meta')
    return _count(network, {k: inputs[k] for k in inputs if k not in ('x', 't')}, None, _Once).total


def _count(network: nn.Module, inputs: dict, grid: tuple[int, ...] | None, how: type) -> MacCount:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch.jit's deprecation, on import
        from fvcore.nn.jit_analysis import JitModelAnalysis
        from fvcore.nn.jit_handles import (
            addmm_flop_jit,
            bmm_flop_jit,
            conv_flop_jit,
            einsum_flop_jit,
            linear_flop_jit,
            matmul_flop_jit,
        )

    tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    fixed = {key: value for key, value in inputs.items() if key not in tensors}
    if grid is not None:
        fixed['grid'] = tuple(grid)
    call = how(on_meta(network), list(tensors), fixed).eval()
    analysis = JitModelAnalysis(call, tuple(tensors.values()))
    analysis.set_op_handle(
        **{
            'aten::linear': linear_flop_jit,
            'aten::addmm': addmm_flop_jit,
            'aten::bmm': bmm_flop_jit,
            'aten::matmul': matmul_flop_jit,
            'aten::einsum': einsum_flop_jit,
            'aten::_convolution': conv_flop_jit,
            'aten::scaled_dot_product_attention': _attention_macs,
            **{name: macs for name, macs in _REGISTERED.items() if macs is not None},
        }
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings(), KnownShapes():
        warnings.simplefilter('ignore')  # tracing notes that sizes become constants: they are
        by_module = analysis.by_module_and_operator()
        unknown = set(analysis.unsupported_ops()) - _NOT_COUNTED - set(_REGISTERED)
    if unknown:
        raise ValueError(
            f'operations {sorted(unknown)} have no known cost, so a count would be too low. Say '
            'what they cost with mmsparsedit.nn.flops.register_cost, where the network is defined.'
        )
    return MacCount(int(analysis.total()), _by_part(by_module))


def _attention_macs(inputs: list, outputs: list) -> Counter:
    """q k^T and the product of its softmax with v: (..., N, K, d) and (..., N, K, d_v)."""
    from fvcore.nn.jit_handles import get_shape

    q, k, v = (get_shape(value) for value in inputs[:3])
    pairs = math.prod(q[:-1]) * k[-2]
    return Counter(attention=pairs * (q[-1] + v[-1]))


def _by_part(by_module: dict[str, Counter]) -> dict[str, int]:
    """Split the total by the names of modules that ``nn`` uses."""
    parts = dict.fromkeys(PARTS, 0)
    for name, counts in by_module.items():
        total, attention = sum(counts.values()), counts.get('attention', 0)
        owner, _, last = name.rpartition('.')
        if last in ('attn', 'cross_attn'):
            parts['attention'] += attention
            parts['qkv'] += total - attention
        elif last == 'proj' and owner.endswith(('attn', 'cross_attn')):
            parts['projection'] += total
            parts['qkv'] -= total
        elif last == 'mlp' and not owner.endswith('_embedder'):
            parts['mlp'] += total
        elif last in ('merge_sparse', 'merge_dense'):
            parts['merge'] += total
        elif last in ('adaLN_modulation', 't_block'):
            parts['modulation'] += total
    whole = sum(by_module[''].values())
    parts['rest'] = whole - sum(parts.values())
    return {name: int(count) for name, count in parts.items()}

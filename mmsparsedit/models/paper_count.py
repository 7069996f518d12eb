"""What others count for the same numbers: the authors' code, the paper's figures, their log.

The authors' layers do by more operations what this package's do, and their counter (fvcore's)
counts norms and pooling and passes by products of a fused kernel. Each difference is measured by
hooks on the modules that cause it, so that it holds for any network of these modules.
"""

import math
from collections import Counter

import torch
from torch import Tensor, nn

from mmsparsedit.nn import SDTM, Attention, PoolingAttention, TokenRecovery
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.nn.meta import KnownShapes, on_meta

# per clip here, per frame and position there; before and after a linear map that commutes
AS_AUTHORS = ('values before mean', 'merge after upsampling', 'modulation per frame and position')
ONES = 'ones product'  # the mean of values as a product with an N x N matrix of ones
NORM_OPERATIONS = 4  # per element, fvcore's for a norm without affine map


def extra_macs(network: nn.Module, grid: tuple[int, ...] | None = None) -> Counter:
    """MACs per sample that the authors' code, counted by fvcore, has beyond this one's, by name.

    ``AS_AUTHORS`` and ``ONES`` are more arithmetic for the same numbers; ``'norms'`` and
    ``'pooling'`` are counted there and not here; ``'products of generation and recovery'`` is
    negative: these run in a fused kernel that fvcore passes by.
    """
    extra: Counter = Counter()

    def sequences(x: Tensor) -> int:
        return math.prod(x.shape[:-2])

    def count(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        x = args[0]
        N, C = x.shape[-2:]
        if isinstance(module, nn.LayerNorm):
            extra['norms'] += NORM_OPERATIONS * x.numel()
        if isinstance(module, PoolingAttention):
            extra['values before mean'] += sequences(x) * (N - 1) * 2 * C**2
            extra[ONES] += sequences(x) * N**2 * C
        if isinstance(module, TokenRecovery):
            extra['merge after upsampling'] += sequences(x) * (N - args[2].shape[-2]) * C**2
        if isinstance(module, SDTM):
            extra['pooling'] += x.numel()
        if isinstance(module, Attention) and len(args) > 1:
            extra['products of generation and recovery'] -= 2 * x.numel() * args[1].shape[-2]
        if hasattr(module, 'adaLN_modulation'):
            weights = module.adaLN_modulation[1].weight.numel()
            extra['modulation per frame and position'] += (sequences(x) - 1) * weights

    bare = on_meta(network).eval()
    for module in bare.modules():
        if isinstance(module, nn.LayerNorm | PoolingAttention | TokenRecovery | SDTM | Attention):
            module.register_forward_hook(count, with_kwargs=True)
        elif hasattr(module, 'adaLN_modulation'):
            module.register_forward_hook(count, with_kwargs=True)
    with torch.no_grad(), KnownShapes():
        bare(**bare.example_inputs(1, 'meta'), grid=grid)
    return extra


def paper_macs(network: nn.Module, grid: tuple[int, ...] | None = None) -> int:
    """MACs of one call as the paper's tables count them."""
    return count_macs(network, grid).total + sum(extra_macs(network, grid).values())


def log_macs(network: nn.Module, grid: tuple[int, ...] | None = None) -> int:
    """MACs of one call as the authors' log has them: fvcore on their network, to the unit.

    Of an image network. Unlike in the tables no attention product is counted, as all of them run
    in a fused kernel; what fvcore counts for upsampling, an operation an element, and for the
    einsum that puts patches together, half an operation an element, is counted.
    """
    macs: Counter = Counter()

    def count(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        x = args[0]
        if isinstance(module, TokenRecovery):
            macs['upsampling'] += x.numel()
        elif len(args) == 1:  # tokens that read themselves
            macs['products'] -= 2 * x.numel() * x.shape[-2]

    bare = on_meta(network).eval()
    for module in bare.modules():
        if isinstance(module, TokenRecovery) or type(module) is Attention:
            module.register_forward_hook(count, with_kwargs=True)
    with torch.no_grad(), KnownShapes():
        output = bare(**bare.example_inputs(1, 'meta'), grid=grid)
    return paper_macs(network, grid) + sum(macs.values()) + output.numel() // 2

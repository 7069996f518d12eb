"""Networks on the meta device: shapes without numbers, and without the time that they take.

torch derives the shapes of most operations in Python, a millisecond each. A network repeats its
layers, so all but a few of its operations have been derived before.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


def on_meta(network: nn.Module) -> nn.Module:
    """A copy without storage: only the structure of ``network`` is duplicated."""
    memo: dict = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        meta = tensor.detach().to('meta')
        memo[id(tensor)] = nn.Parameter(meta) if isinstance(tensor, nn.Parameter) else meta
    structure = copy.deepcopy(network, memo)
    for module in structure.modules():
        # activation checkpointing sets a forward on the instance that holds the original's weights
        module.__dict__.pop('forward', None)
    return structure


class KnownShapes(TorchDispatchMode):
    """Within it, an operation on meta tensors is derived once for each kind of its arguments.

    A call of the same operation with tensors of the same shapes, strides and dtypes and with the
    same other arguments gets new meta tensors like those of the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple, Any] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        devices: set[str] = set()
        key = (func, _kind(args, devices), _kind(tuple(kwargs.items()), devices))
        if devices != {'meta'}:  # values may decide, or a factory has no tensor to know it by
            return func(*args, **kwargs)
        if key not in self._known:
            self._known[key] = func(*args, **kwargs)
        return tree_map_only(Tensor, _like, self._known[key])


def _kind(value: Any, devices: set[str]) -> Any:
    """What the shape of a result can depend on, as a key."""
    if isinstance(value, Tensor):
        devices.add(value.device.type)
        return value.dtype, value.shape, value.stride()
    if isinstance(value, list | tuple):
        return tuple(_kind(item, devices) for item in value)
    return type(value), value  # True is not 1


def _like(made: Tensor) -> Tensor:
    return torch.empty_strided(made.shape, made.stride(), dtype=made.dtype, device='meta')

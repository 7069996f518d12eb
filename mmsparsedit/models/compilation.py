"""Compilation of a network: whole stages, or layer by layer.

A function is compiled for static shapes and has a code object of its own, because compilations are
kept and limited (to eight) per code object.
"""

import functools
import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, compile, nn
from torch.utils.checkpoint import checkpoint

COMPILE_BY = ('layer', 'stage')


def compiled_stage(function: Callable, key: Hashable, options: dict) -> Callable:
    """``function`` compiled for static shapes, with a code object that no other key shares.

    Args:
        key: names it in profiles and logs of the compiler.
        options: of ``torch.compile``.
    """
    parts = key if isinstance(key, tuple) else (key,)
    name = 'stage_' + '_'.join(str(part).replace(' ', '') for part in parts)
    own = types.FunctionType(
        function.__code__.replace(co_name=name),
        function.__globals__,
        name,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return compile(own, **{'dynamic': False, **options})


class CompiledLayers:
    """The layers of a network, compiled for as long as a call of it lasts.

    Layers of one class that get the same shapes share one compiled function, whatever their number
    and depth: dense layers of all stages, the sparse layers of a stage. What goes on between layers
    stays outside: hooks, the gathering of sharded weights, recomputation. There is nothing in it
    that the compiler could not take whole, so a break of the graph is an error.

    Args:
        options: of ``torch.compile``.
    """

    def __init__(self, options: dict) -> None:
        self.options = {'fullgraph': True, **options}
        self._functions: dict[Hashable, Callable] = {}

    @contextmanager
    def of(self, network: nn.Module) -> Iterator[None]:
        """Within this context, calls of the layers of ``network`` and of its last layer are
        compiled; ``network`` has ``named_layers`` and ``final_layer``."""
        layers = [*(layer for _, layer in network.named_layers()), network.final_layer]
        before = [layer.__dict__.get('forward') for layer in layers]
        runs = [
            self._recomputed(own, functools.partial(self._run, layer))
            for layer, own in zip(layers, before, strict=True)
        ]
        from torch._dynamo import config  # which takes a second to import

        try:
            for layer, run in zip(layers, runs, strict=True):
                layer.forward = run
            with config.patch(optimize_ddp=False):  # gradients are sent between layers anyway
                yield
        finally:
            for layer, own in zip(layers, before, strict=True):
                if own is None:
                    del layer.forward
                else:
                    layer.forward = own

    @staticmethod
    def _recomputed(own: Callable | None, run: Callable) -> Callable:
        """``run``, recomputed in the backward pass where the layer is (``recompute_layers``)."""
        if own is None:
            return run
        if isinstance(own, functools.partial) and own.func is checkpoint:
            return functools.partial(checkpoint, run, **own.keywords)
        raise ValueError(
            f'a layer has a forward of its own, {own}, which compilation by layers would leave '
            "out: set compile_by='stage'."
        )

    def _run(self, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = type(layer)
        key = (kind, _shapes(args), _shapes(tuple(kwargs.values())))
        if key not in self._functions:
            tensors = (x for x in args if isinstance(x, Tensor))
            name = (kind.__name__, *('x'.join(map(str, x.shape)) for x in tensors))
            self._functions[key] = compiled_stage(kind.forward, name, self.options)
        return self._functions[key](layer, *args, **kwargs)


def _shapes(values: tuple) -> tuple:
    """Shapes of tensors, also of those in tuples; numbers of a grid as they are."""
    return tuple(
        value.shape
        if isinstance(value, Tensor)
        else _shapes(value)
        if isinstance(value, tuple)
        else value
        for value in values
    )

"""The function of one stage of sampling: of one static shape, in bf16, captured as a CUDA graph.

B batch, the two halves of guidance counted.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from mmsparsedit.nn.attention_kernels import ChosenKernels

WARM_UP = 3  # calls before a capture, as CUDA graphs ask for

Grid = tuple[int, ...] | None


class Stage:
    """A function of one static shape; ``fixed`` fills a smaller batch up to the first one."""

    def __init__(self, function: Callable, fixed: bool) -> None:
        self.function, self.fixed, self.batch = function, fixed, 0

    def __call__(
        self, x: Tensor, t: Tensor, residual: Tensor | None, condition: dict
    ) -> tuple[Tensor, Tensor | None]:
        rows = x.shape[0]
        self.batch = max(self.batch, rows)
        if not self.fixed or rows == self.batch:
            return self.function(x, t, residual, condition)
        extra = self.batch - rows
        filled = {key: _filled(value, extra) for key, value in condition.items()}
        output, residual = self.function(
            _filled(x, extra), _filled(t, extra), _filled(residual, extra), filled
        )
        return output[:rows], None if residual is None else residual[:rows]


class WithKernels:
    """A stage whose attention is computed by chosen kernels.

    Args:
        network: whose attentions they are.
        plain: the stage as it is not compiled; it runs once for each shape, to measure.
    """

    def __init__(
        self, network: nn.Module, kernels: ChosenKernels, function: Callable, plain: Callable
    ) -> None:
        self._attentions = [m for m in network.modules() if hasattr(m, 'kernels')]
        self._kernels, self._function, self._plain = kernels, function, plain
        self._met: set[torch.Size] = set()

    def __call__(self, x: Tensor, *rest):
        for module in self._attentions:
            module.kernels = self._kernels
        try:
            if x.shape not in self._met:
                self._plain(x, *rest)
                self._met.add(x.shape)
            return self._function(x, *rest)
        finally:
            for module in self._attentions:
                module.kernels = None


def _filled(value, extra: int):
    """Tensors (B, ...), also those in tuples, with their last row repeated ``extra`` times."""

    def fill(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor[-1:].expand(extra, *tensor.shape[1:])])

    return tree_map_only(Tensor, fill, value)


def stage_function(network: nn.Module, grid: Grid) -> Callable:
    """(x, t, None, condition) -> output of a whole call, and nothing to be kept of it."""

    def stage(x: Tensor, t: Tensor, kept: None, condition: dict) -> tuple[Tensor, None]:
        return network(x, t, grid=grid, **condition), None

    return stage


def low_precision(function: Callable) -> Callable:
    """A function of a network with bf16 weights, the first of what it returns in float32."""

    def run(x: Tensor, *inputs):
        # weights were cast beforehand: a cache of casts would outlive a captured graph
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            output, *others = function(x, *inputs)
        return output.float(), *others

    return run


class Captured:
    """A function as one CUDA graph.

    Inputs are copied into place, the graph is replayed, and its outputs are copied out: the next
    graph of the pool may write over them. A condition is the same tensor at every step of a
    trajectory and is copied once.
    """

    def __init__(self, function: Callable, pool) -> None:
        self._function, self._pool = function, pool
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, t: Tensor, residual: Tensor | None, condition: dict):
        if self._graph is None or self._x.shape != x.shape:
            self._capture(x, t, residual, condition)
        for static, value in ((self._x, x), (self._t, t), (self._residual, residual)):
            if value is not None:
                static.copy_(value)
        for key, value in condition.items():
            if value is not self._copied.get(key):
                for static, new in zip(
                    tree_leaves(self._condition[key]), tree_leaves(value), strict=True
                ):
                    if isinstance(new, Tensor):
                        static.copy_(new)
                self._copied[key] = value
        self._graph.replay()
        return tuple(None if value is None else value.clone() for value in self._result)

    def _capture(self, x: Tensor, t: Tensor, residual: Tensor | None, condition: dict) -> None:
        self._x, self._t = x.clone(), t.clone()
        self._residual = None if residual is None else residual.clone()
        self._condition = tree_map_only(Tensor, torch.clone, condition)
        self._copied: dict = {}
        arguments = (self._x, self._t, self._residual, self._condition)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._function(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # other threads may go on with the device: a loader that pins memory
        with torch.cuda.graph(self._graph, self._pool, capture_error_mode='thread_local'):
            self._result = self._function(*arguments)

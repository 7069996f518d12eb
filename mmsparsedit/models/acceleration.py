"""How a network is run when it has to be quick: compiled, captured, in bf16 or fp8, with a cache.

A stage is one token grid, guided or not: one static shape. Each stage has a function of its own,
so that a trajectory that walks through the stages compiles each of them once and never again.
Nothing here belongs to the module tree: checkpoints and averages of weights do not see it.

B batch, the two halves of guidance counted.
"""

import types
from collections.abc import Callable, Hashable
from operator import is_not
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmsparsedit.nn.flops import count_macs
from mmsparsedit.registry import MODELS

from .low_precision import SamplingCopy, check_fp8
from .methods import Method, ResidualCache, TokenMerging, part_macs

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
WARM_UP = 3  # calls before a capture, as CUDA graphs ask for

Grid = tuple[int, ...] | None


class Acceleration:
    """Runs a generator's network; with no option it only calls it.

    Args:
        compile: compile each stage by ``torch.compile``; a dict gives its arguments, e.g.
            ``dict(mode='max-autotune-no-cudagraphs')``. Shapes are static: a smaller batch than
            the first one of sampling is filled up, a larger one compiles anew. Serves training
            too, one function per grid.
        cuda_graphs: capture each stage of sampling as one CUDA graph, with or without ``compile``.
        dtype: of the linear maps of sampling, ``'float32'`` or ``'bfloat16'``. Tokens between
            layers, timestep embedding, last layer and sampler stay in float32. Training has
            ``Bf16OptimWrapper``.
        fp8: linear maps of attention and MLP in float8 (torchao: weights and inputs scaled row by
            row); needs ``dtype='bfloat16'`` and a GPU of capability 8.9. ``fp8_layers`` says which.
        cache_interval: compute the middle segment every that many calls of a stage and keep what it
            added in between; 1 is off. Short for ``method=dict(type='ResidualCache', interval=k)``.
        method: how calls of sampling are spared, one of ``mmsparsedit.models.methods``, e.g.
            ``dict(type='TaylorSeer', interval=3, order=2)``.
        merge: tokens that layers of sampling merge, e.g. ``dict(type='TokenMerging', ratio=0.5)``.

    With bf16 or fp8, sampling uses a copy of the network that takes over the weights at the start
    of each trajectory, so that it follows training and averages of weights.
    """

    def __init__(
        self,
        compile: bool | dict = False,
        cuda_graphs: bool = False,
        dtype: str = 'float32',
        fp8: bool = False,
        cache_interval: int = 1,
        method: dict | None = None,
        merge: dict | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype must be one of {list(DTYPES)}, got {dtype!r}.')
        if fp8 and dtype != 'bfloat16':
            raise ValueError(
                f'fp8 needs dtype bfloat16 for what it leaves alone, got {dtype!r}: set both.'
            )
        if isinstance(compile, dict) and compile.get('mode') in ('reduce-overhead', 'max-autotune'):
            raise ValueError(
                f'compile mode {compile["mode"]!r} captures graphs whose outputs the next step '
                "overwrites: use cuda_graphs=True (and mode 'max-autotune-no-cudagraphs' to tune)."
            )
        middle = ResidualCache(cache_interval)  # refuses a wrong interval
        if cache_interval > 1 and method is not None:
            raise ValueError(
                f'cache_interval {cache_interval} is a method of its own, and method says '
                f'{method["type"]!r}: leave one of them out.'
            )
        self.options = dict(
            compile=compile,
            cuda_graphs=cuda_graphs,
            dtype=dtype,
            fp8=fp8,
            cache_interval=cache_interval,
            method=method,
            merge=merge,
        )
        self.method: Method | None = middle if cache_interval > 1 else None
        if method is not None:
            self.method = MODELS.build(method)
        self.merge: TokenMerging | None = None if merge is None else MODELS.build(merge)
        if cuda_graphs and self.method is not None and self.method.decides:
            raise ValueError(
                f'{type(self.method).__name__} decides on the host what to compute, which no CUDA '
                'graph can hold: leave cuda_graphs out.'
            )
        self.compile = None if compile is False else {} if compile is True else dict(compile)
        self.cuda_graphs = cuda_graphs
        self.dtype = DTYPES[dtype]
        self.fp8 = fp8
        self.cache_interval = cache_interval
        self._counted: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
        self._forget()

    def __deepcopy__(self, memo: dict) -> 'Acceleration':
        """A new one with the same options: what was compiled belongs to one network."""
        return type(self)(**self.options)

    def _forget(self, network: nn.Module | None = None) -> None:
        self._network = network
        self._stages: dict[Hashable, _Stage] = {}
        self._copy: SamplingCopy | None = None
        self._routes: dict[str, nn.Module] = {}  # copies for merge and method, with shared weights
        self._tensors: tuple[Tensor, ...] = ()  # that they share
        self._pool = None

    def train(self, network: nn.Module, x: Tensor, t: Tensor, grid: Grid, condition: dict):
        """The network's output in training, with gradients, in the precision of the caller."""
        if self.compile is None:
            return network(x, t, grid=grid, **condition)
        self._keep_to(network)
        key = ('train', grid)
        if key not in self._stages:
            function = _stage_function(network, grid)
            self._stages[key] = _Stage(compiled_stage(function, key, self.compile), fixed=False)
        return self._stages[key](x, t, None, condition)[0]

    def trajectory(self, network: nn.Module, num_calls: int) -> Callable[..., Tensor]:
        """``run(x, t, grid, condition, guided)`` for the calls of one trajectory, in their order.

        Returns:
            A function whose output is float32 and not written to again.
        """
        self._keep_to(network)
        device = next(network.parameters()).device
        if self.cuda_graphs:
            check_cuda(device)
        if self.fp8:
            check_fp8(device)
        if self.dtype != torch.float32:
            if self._copy is None:
                self._copy = SamplingCopy(network, self.dtype, self.fp8)
            self._copy.take_weights(network)
            network = self._copy.network
        if self.method is None and self.merge is None:
            return self._plain(network)
        if not self._routes:
            self._routes = self.routes(network)
            if any(getattr(route, 'linked', True) for route in self._routes.values()):
                self._tensors = _tensors_of(self._network)
        if self.method is None:
            run = self._plain(self._routes['merged'])
        else:
            run = self.method.trajectory(self._routes['parts'], self._ready, num_calls)
        if self.merge is not None:
            run = self.merge.drawn(self._routes['merged'], run, num_calls)
        return run

    def routes(self, network: nn.Module) -> dict[str, nn.Module]:
        """Copies of a network that share its weights: as ``merge`` and as ``method`` run it."""
        routes = {}
        if self.merge is not None:
            network = routes['merged'] = self.merge.merged(network)
        if self.method is not None:
            routes['parts'] = self.method.parts(network)
        return routes

    def call_macs(self, network: nn.Module, grid: Grid, reused: bool) -> int | None:
        """MACs of one call of one sample as merge and method run it; None where it is as ever."""
        if self.method is None and self.merge is None:
            return None
        counted = self._counted.setdefault(network, {})
        if (grid, reused) not in counted:
            routes = self.routes(network)
            if 'parts' in routes:
                counted[grid, reused] = part_macs(routes['parts'], grid, reused)
            else:
                counted[grid, reused] = count_macs(routes['merged'], grid).total
        return counted[grid, reused]

    def _plain(self, network: nn.Module) -> Callable[..., Tensor]:
        """Every call whole."""

        def run(x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False) -> Tensor:
            stage = self._ready((grid, guided, False), _stage_function(network, grid))
            return stage(x, t, None, condition)[0]

        return run

    def _keep_to(self, network: nn.Module) -> None:
        if network is not self._network or self._moved(network):
            self._forget(network)

    def _moved(self, network: nn.Module) -> bool:
        """Whether the network has tensors other than those that copies of it share."""
        if not self._tensors:
            return False
        tensors = _tensors_of(network)
        return len(tensors) != len(self._tensors) or any(map(is_not, tensors, self._tensors))

    def _ready(self, key: tuple, function: Callable, static: bool = True) -> Callable:
        """``function`` as the options have it run, made once for a key: see ``methods.Ready``."""
        if key in self._stages:
            return self._stages[key]
        function = _in_precision(function, self.dtype)
        if self.compile is not None:
            function = compiled_stage(function, key, self.compile)
        if self.cuda_graphs:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            function = _Captured(function, self._pool)
        if static:
            fixed = self.compile is not None or self.cuda_graphs
            function = _Stage(function, fixed=fixed)
        self._stages[key] = function
        return function


def _tensors_of(network: nn.Module) -> tuple[Tensor, ...]:
    return (*network.parameters(), *network.buffers())


class _Stage:
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


def _filled(value, extra: int):
    """A tensor (B, ...) with its last row repeated ``extra`` times."""
    if not isinstance(value, Tensor):
        return value
    return torch.cat([value, value[-1:].expand(extra, *value.shape[1:])])


def _stage_function(network: nn.Module, grid: Grid) -> Callable:
    """(x, t, None, condition) -> output of a whole call, and nothing to be kept of it."""

    def stage(x: Tensor, t: Tensor, kept: None, condition: dict) -> tuple[Tensor, None]:
        return network(x, t, grid=grid, **condition), None

    return stage


def _in_precision(function: Callable, dtype: torch.dtype) -> Callable:
    """``function`` under autocast, the first of what it returns in float32."""
    if dtype == torch.float32:
        return function

    def low_precision(x: Tensor, *inputs):
        # weights were cast beforehand: a cache of casts would outlive a captured graph
        with torch.autocast(x.device.type, dtype, cache_enabled=False):
            output, *others = function(x, *inputs)
        return output.float(), *others

    return low_precision


def compiled_stage(function: Callable, key: Hashable, options: dict) -> Callable:
    """``function`` compiled for static shapes.

    It gets a code object of its own: compilations are kept and limited (to eight) per code object,
    and the stages share their code.
    """
    name = 'stage_' + '_'.join(str(part).replace(' ', '') for part in key)
    own = types.FunctionType(
        function.__code__.replace(co_name=name),
        function.__globals__,
        name,
        function.__defaults__,
        function.__closure__,
    )
    return torch.compile(own, **{'dynamic': False, **options})


def check_cuda(device: torch.device) -> None:
    """Raise ValueError where there are no CUDA graphs."""
    if device.type != 'cuda':
        raise ValueError(
            f'cuda_graphs needs a CUDA device, the network is on {device}: leave it out.'
        )


class _Captured:
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
            if isinstance(value, Tensor) and value is not self._copied.get(key):
                self._condition[key].copy_(value)
                self._copied[key] = value
        self._graph.replay()
        return tuple(None if value is None else value.clone() for value in self._result)

    def _capture(self, x: Tensor, t: Tensor, residual: Tensor | None, condition: dict) -> None:
        self._x, self._t = x.clone(), t.clone()
        self._residual = None if residual is None else residual.clone()
        self._condition = {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in condition.items()
        }
        self._copied: dict[str, Tensor] = {}
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

"""How a network is run when it has to be quick: compiled, captured, in bf16 or fp8, with a cache.

A stage is one token grid, guided or not: one static shape. Each stage has a function of its own,
so that a trajectory that walks through the stages compiles each of them once and never again.
Nothing here belongs to the module tree: checkpoints and averages of weights do not see it.

B batch, the two halves of guidance counted.
"""

import copy
import types
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from mmsparsedit.nn import Attention, TimestepEmbedder
from mmsparsedit.nn.blocks import Mlp
from mmsparsedit.nn.caption import CrossAttention
from mmsparsedit.nn.step_cache import MiddleResidual, StepCache

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
FP8_CAPABILITY = (8, 9)  # Ada; Hopper is (9, 0)
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
            added in between (``StepCache``); 1 is off.

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
        StepCache(cache_interval)  # refuses a wrong interval
        self.options = dict(
            compile=compile,
            cuda_graphs=cuda_graphs,
            dtype=dtype,
            fp8=fp8,
            cache_interval=cache_interval,
        )
        self.compile = None if compile is False else {} if compile is True else dict(compile)
        self.cuda_graphs = cuda_graphs
        self.dtype = DTYPES[dtype]
        self.fp8 = fp8
        self.cache_interval = cache_interval
        self._forget()

    def __deepcopy__(self, memo: dict) -> 'Acceleration':
        """A new one with the same options: what was compiled belongs to one network."""
        return type(self)(**self.options)

    def _forget(self, network: nn.Module | None = None) -> None:
        self._network = network
        self._stages: dict[Hashable, _Stage] = {}
        self._copy: SamplingCopy | None = None
        self._pool = None

    def train(self, network: nn.Module, x: Tensor, t: Tensor, grid: Grid, condition: dict):
        """The network's output in training, with gradients, in the precision of the caller."""
        if self.compile is None:
            return network(x, t, grid=grid, **condition)
        self._keep_to(network)
        key = ('train', grid)
        if key not in self._stages:
            function = _stage_function(network, grid, caching=False, dtype=torch.float32)
            self._stages[key] = _Stage(_compiled(function, key, self.compile), fixed=False)
        return self._stages[key](x, t, None, condition)[0]

    def trajectory(self, network: nn.Module) -> Callable[..., Tensor]:
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
        cache, kept = StepCache(self.cache_interval), MiddleResidual()

        def run(x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False) -> Tensor:
            reused = cache.reuses((grid, guided))
            stage = self._stage(network, (grid, guided, reused))
            output, residual = stage(x, t, kept.value if reused else None, condition)
            if not reused:
                kept.value = residual
            return output

        return run

    def _keep_to(self, network: nn.Module) -> None:
        if network is not self._network:
            self._forget(network)

    def _stage(self, network: nn.Module, key: tuple[Grid, bool, bool]) -> '_Stage':
        if key in self._stages:
            return self._stages[key]
        function = _stage_function(network, key[0], self.cache_interval > 1, self.dtype)
        if self.compile is not None:
            function = _compiled(function, key, self.compile)
        if self.cuda_graphs:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            function = _Captured(function, self._pool)
        static = self.compile is not None or self.cuda_graphs
        self._stages[key] = _Stage(function, fixed=static)
        return self._stages[key]


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


def _stage_function(network: nn.Module, grid: Grid, caching: bool, dtype: torch.dtype) -> Callable:
    """(x, t, residual, condition) -> output, and the middle's residual if it is new and kept."""

    def stage(x: Tensor, t: Tensor, residual: Tensor | None, condition: dict):
        if not caching:
            return network(x, t, grid=grid, **condition), None
        kept = MiddleResidual(residual)
        output = network(x, t, grid=grid, kept=kept, **condition)
        return output, kept.value if residual is None else None

    if dtype == torch.float32:
        return stage

    def low_precision(x: Tensor, t: Tensor, residual: Tensor | None, condition: dict):
        # weights were cast beforehand: a cache of casts would outlive a captured graph
        with torch.autocast(x.device.type, dtype, cache_enabled=False):
            output, residual = stage(x, t, residual, condition)
        return output.float(), residual

    return low_precision


def _compiled(function: Callable, key: Hashable, options: dict) -> Callable:
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


# -- the copy of the network that samples in low precision ----------------------------------------


class SamplingCopy:
    """A frozen copy of a network with its linear maps in ``dtype``, some of them in fp8.

    Timestep embedding and last layer stay as they are and compute in float32 inside autocast.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, fp8: bool = False) -> None:
        if any(hasattr(p, 'to_local') for p in network.parameters()):
            raise ValueError(
                'bf16 and fp8 sample from a copy of the network, and its weights are divided among '
                'processes (FSDP): leave dtype and fp8 out, or sample the saved checkpoint.'
            )
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        # activation checkpointing sets a forward on the instance that holds the original's weights
        for module in frozen.modules():
            module.__dict__.pop('forward', None)
        exact = {n: m for n, m in frozen.named_modules() if isinstance(m, TimestepEmbedder)}
        if hasattr(frozen, 'final_layer'):
            exact['final_layer'] = frozen.final_layer
        kept = {id(inner) for module in exact.values() for inner in module.modules()}
        for module in frozen.modules():
            if isinstance(module, nn.Linear) and id(module) not in kept:
                for key, weight in list(module.named_parameters(recurse=False)):
                    setattr(module, key, nn.Parameter(weight.to(dtype), requires_grad=False))
        self._fp8 = set()
        for name, module in fp8_layers(frozen).items() if fp8 else ():
            _quantize(module)
            module.register_forward_pre_hook(_to_bfloat16)
            self._fp8.add(f'{name}.weight')
        self._tensors = {**dict(frozen.named_parameters()), **dict(frozen.named_buffers())}
        for name, module in exact.items():
            owner, _, last = name.rpartition('.')
            setattr(frozen.get_submodule(owner), last, Float32(module))
        self.network = frozen

    @torch.no_grad()
    def take_weights(self, network: nn.Module) -> None:
        """Cast the weights of ``network`` into place: compiled and captured stages see them."""
        source = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        plain = [key for key in self._tensors if key not in self._fp8]
        torch._foreach_copy_([self._tensors[k] for k in plain], [source[k] for k in plain])
        for key in self._fp8:
            fresh = nn.Linear(1, 1, bias=False, device='meta')
            fresh.weight = nn.Parameter(source[key].to(torch.bfloat16), requires_grad=False)
            _quantize(fresh)
            self._tensors[key].copy_(fresh.weight)


class Float32(nn.Module):
    """A module that computes in float32 inside autocast."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self.inner(*(x.float() for x in inputs))


def fp8_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps that may compute in float8, by name: the large ones inside the blocks.

    MLPs, projections, and queries, keys and values of blocks that read their own tokens. Not:
    embedders, last layer, modulation, pooling (one token), merges (near the identity), and the
    qkv of token generation and recovery, whose weight is split between two inputs.
    """
    reading_others = {
        id(block.attn)
        for module in network.modules()
        for group in ('generation', 'recovery')
        for block in getattr(module, group, ())
    }
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Mlp):
            names = ['fc1', 'fc2']
        elif isinstance(module, Attention):
            names = ['proj'] if id(module) in reading_others else ['qkv', 'proj']
        elif isinstance(module, CrossAttention):
            names = ['q_linear', 'proj']
        else:
            continue
        found.update({f'{name}.{each}': getattr(module, each) for each in names})
    return found


def check_fp8(device: torch.device) -> None:
    """Raise ValueError or ImportError where float8 cannot run."""
    needed = f'fp8 needs a CUDA GPU of capability {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]} or above'
    if device.type != 'cuda':
        raise ValueError(f'{needed} (Ada, Hopper), the network is on {device}: leave fp8 out.')
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        raise ValueError(f'{needed}, this one has {capability[0]}.{capability[1]}: leave fp8 out.')


def _quantize(linear: nn.Linear) -> None:
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError as error:
        raise ImportError('fp8 needs torchao: pip install torchao, or leave fp8 out.') from error
    quantize_(linear, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))


def _to_bfloat16(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Before a float8 layer, which autocast does not know: rows are scaled from bf16."""
    return tuple(x.to(torch.bfloat16) for x in inputs)

"""How a network is run when it has to be quick: compiled, captured, in bf16 or fp8, with a cache.

A stage is one token grid, guided or not: one static shape. Each stage has a function of its own,
so that a trajectory that walks through the stages compiles each of them once and never again.
Nothing here belongs to the module tree: checkpoints and averages of weights do not see it.

B batch, the two halves of guidance counted.
"""

import time
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from functools import partial
from operator import is_not
from weakref import WeakKeyDictionary

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmsparsedit.nn.attention_kernels import ChosenKernels
from mmsparsedit.nn.blocks import Mlp
from mmsparsedit.nn.flops import count_macs, count_read_once
from mmsparsedit.registry import MODELS

from .compilation import COMPILE_BY, CompiledLayers, compiled_stage
from .low_precision import SamplingCopy, check_fp8, is_sharded
from .methods import Method, ResidualCache, Run, TokenMerging, part_macs
from .stages import Captured, Grid, Stage, WithKernels, low_precision, stage_function
from .trajectory import Trajectory

DTYPES = ('float32', 'tf32', 'bfloat16')
ATTENTIONS = ('torch', 'measured')
STREAMS = ('float32', 'bfloat16')
BF16_CAPABILITY = (8, 0)  # Ampere


class Acceleration:
    """Runs a generator's network; with no option it only calls it, on a CPU with GELUs fused.

    Args:
        auto: on a CUDA GPU choose ``compile`` and ``dtype`` where they are None: compiled, bf16
            (TF32 where weights are sharded or the GPU has no bf16). What was chosen is logged. On
            a CPU, and for what is given, it changes nothing; ``dtype='float32'`` is exact.
        compile: by ``torch.compile``; a dict gives its arguments, e.g.
            ``dict(mode='max-autotune-no-cudagraphs')``. Shapes are static: a smaller batch than
            the first one of sampling is filled up, a larger one compiles anew. Serves training
            too. None is False, or what ``auto`` chooses.
        compile_by: ``'layer'``: layers of one kind and shape share a function (``CompiledLayers``);
            ``'stage'``: each stage is one function, which takes long to trace and may fuse more.
        cuda_graphs: capture each stage of sampling as one CUDA graph, with or without ``compile``.
        dtype: of the linear maps and attention, in sampling and in training (by autocast).
            ``'float32'``, as exact as the process multiplies; ``'tf32'``, float32 whose products
            a GPU rounds to TF32; ``'bfloat16'``, where tokens between layers, timestep embedding,
            last layer and sampler stay in float32. None is float32, or what ``auto`` chooses.
        stream: of the tokens between layers of bf16 sampling: ``'float32'``, or ``'bfloat16'``,
            which halves the traffic of norms and sums and rounds at every layer.
        fp8: linear maps of attention and MLP in float8 (torchao: weights and inputs scaled row by
            row); needs ``dtype='bfloat16'`` and a GPU of capability 8.9. ``fp8_layers`` says which.
        cache_interval: compute the middle segment every that many calls of a stage and keep what it
            added in between; 1 is off. Short for ``method=dict(type='ResidualCache', interval=k)``.
        method: how calls of sampling are spared, one of ``mmsparsedit.models.methods``, e.g.
            ``dict(type='TaylorSeer', interval=3, order=2)``.
        merge: tokens that layers of sampling merge, e.g. ``dict(type='TokenMerging', ratio=0.5)``.
        gelu_epilogue: sampling leaves the GELU of the MLPs to their first product. True needs bf16
            and CUDA; None does it on a CPU, where nothing is compiled and weights are float32.
        attention: ``'torch'``, the kernel that PyTorch takes; ``'measured'``: of its kernels the
            quickest, measured for each shape when a trajectory first meets it (sampling).
        token_parallel: split the tokens of each sample among all processes (``TokenParallel``),
            which then sample the same requests together.

    With bf16 or fp8, sampling uses a copy of the network that takes over the weights at the start
    of each trajectory, so that it follows training and averages of weights.
    """

    def __init__(
        self,
        compile: bool | dict | None = None,
        cuda_graphs: bool = False,
        dtype: str | None = None,
        fp8: bool = False,
        cache_interval: int = 1,
        method: dict | None = None,
        merge: dict | None = None,
        compile_by: str = 'layer',
        stream: str = 'float32',
        auto: bool = False,
        gelu_epilogue: bool | None = None,
        attention: str = 'torch',
        token_parallel: bool = False,
    ) -> None:
        for name, value, known in (
            ('dtype', 'float32' if dtype is None else dtype, DTYPES),
            ('compile_by', compile_by, COMPILE_BY),
            ('stream', stream, STREAMS),
            ('attention', attention, ATTENTIONS),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, got {value!r}.')
        if fp8 and dtype != 'bfloat16':
            raise ValueError(
                f'fp8 needs dtype bfloat16 for what it leaves alone, got {dtype!r}: set both.'
            )
        if stream == 'bfloat16' and dtype != 'bfloat16':
            raise ValueError(f'stream bfloat16 needs dtype bfloat16 too, got {dtype!r}: set both.')
        if gelu_epilogue and (fp8 or dtype != 'bfloat16'):
            raise ValueError(
                f'gelu_epilogue is for bf16 products, got dtype {dtype!r} and fp8 {fp8}: set '
                "dtype='bfloat16' without fp8, or leave it out."
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
        if token_parallel and (cache_interval > 1 or method or merge or cuda_graphs):
            raise ValueError(
                'token_parallel runs whole networks outside of graphs: leave cache_interval, '
                'method, merge and cuda_graphs out.'
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
        self.options = dict(
            compile=compile,
            cuda_graphs=cuda_graphs,
            dtype=dtype,
            fp8=fp8,
            cache_interval=cache_interval,
            method=method,
            merge=merge,
            compile_by=compile_by,
            stream=stream,
            auto=auto,
            gelu_epilogue=gelu_epilogue,
            attention=attention,
            token_parallel=token_parallel,
        )
        self.compile_by = compile_by
        self.cuda_graphs = cuda_graphs
        self.fp8 = fp8
        self.stream = stream
        self.gelu_epilogue = gelu_epilogue
        self.measures_attention = attention == 'measured'
        self.cache_interval = cache_interval
        self.token_parallel = token_parallel
        self._counted: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
        self._forget()

    def __deepcopy__(self, memo: dict) -> 'Acceleration':
        """A new one with the same options: what was compiled belongs to one network."""
        return type(self)(**self.options)

    def _forget(self, of: tuple[nn.Module, torch.device] | None = None) -> None:
        compile = self.options['compile']
        self.compile = {} if compile is True else None if compile in (None, False) else {**compile}
        self.dtype = self.options['dtype'] or 'float32'
        self._of = of
        self._stages: dict[Hashable, Stage] = {}
        self._layers: CompiledLayers | None = None
        self._copy: SamplingCopy | None = None
        self._parallel: nn.Module | None = None
        self._kernels: ChosenKernels | None = None
        self._routes: dict[str, nn.Module] = {}  # copies for merge and method, with shared weights
        self._tensors: tuple[Tensor, ...] = ()  # that they share
        self._pool = None

    def train(self, network: nn.Module, x: Tensor, t: Tensor, grid: Grid, condition: dict):
        """The network's output in training, with gradients.

        Under ``dtype='tf32'`` the float32 products of the process are set to TF32 and stay so: the
        backward pass comes later.
        """
        self._keep_to(network)
        if self.dtype == 'tf32' and x.is_cuda:
            torch.set_float32_matmul_precision('high')
        low = nullcontext()
        if self.dtype == 'bfloat16':
            # a pass uses each weight once: keeping the casts would only hold memory
            low = torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False)
        with low:
            if self.compile is None:
                return network(x, t, grid=grid, **condition)
            key = ('train', grid)
            if key not in self._stages:
                function = self._compiled(network, stage_function(network, grid), key)
                self._stages[key] = Stage(function, fixed=False)
            return self._stages[key](x, t, None, condition)[0]

    def trajectory(self, network: nn.Module, num_calls: int) -> Trajectory:
        """``run(x, t, grid, condition, guided)`` for the ``num_calls`` calls of one trajectory, in
        their order; ``run.read(condition)`` beforehand.

        Returns:
            A function whose output is float32 and not written to again.
        """
        self._keep_to(network)
        device = next(network.parameters()).device
        for name in ('cuda_graphs', 'gelu_epilogue'):
            if self.options[name]:
                check_cuda(device, name)
        if self.fp8:
            check_fp8(device)
        if self.dtype == 'bfloat16' and not (self.options['auto'] and is_sharded(network)):
            if self._copy is None:
                self._copy = SamplingCopy(network, torch.bfloat16, self.fp8, self.stream)
                if self.gelu_epilogue:
                    for module in self._copy.network.modules():
                        if isinstance(module, Mlp):
                            module.gelu_epilogue = True
            self._copy.take_weights(network)
            network = self._copy.network
        if self.measures_attention and self._kernels is None:
            self._kernels = ChosenKernels(partial(_seconds, device), tell=_log)
        if self.token_parallel:
            if self._parallel is None:
                from .token_parallel import TokenParallel

                self._parallel = TokenParallel(network)
            network = self._parallel
        low = self._copy is not None
        tf32 = self.dtype != 'float32' and not low
        run = self._run(network, num_calls)
        fused: list[Mlp] = []
        if device.type == 'cpu' and self.compile is None and self.gelu_epilogue is None:
            mlps = (m for part in (network, *self._routes.values()) for m in part.modules())
            fused = [m for m in mlps if isinstance(m, Mlp) and m.has_cpu_epilogue]
        return Trajectory(network, run, device, low, tf32, self.token_parallel, fused)

    def _run(self, network: nn.Module, num_calls: int) -> Run:
        """The calls of one trajectory as method and merging have them."""
        if self.method is None and self.merge is None:
            return self._plain(network)
        if not self._routes:
            self._routes = self.routes(network)
            if self._linked():
                self._tensors = _tensors_of(self._of[0])
        if self.method is None:
            run = self._plain(self._routes['merged'])
        else:
            ready = partial(self._ready, network)
            run = self.method.trajectory(self._routes['parts'], ready, num_calls)
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

    def _linked(self) -> bool:
        """Whether what runs has layers of its own, which share their weights with the network's."""
        return any(getattr(route, 'linked', True) for route in self._routes.values())

    def call_macs(self, network: nn.Module, grid: Grid, reused: bool) -> int | None:
        """MACs of one call of one sample as merge and method run it, without ``read_once``; None
        where it is as ever."""
        if self.method is None and self.merge is None:
            return None
        counted = self._counted.setdefault(network, {})
        if (grid, reused) not in counted:
            routes = self.routes(network)
            if 'parts' in routes:
                counted[grid, reused] = part_macs(routes['parts'], network, grid, reused)
            else:
                merged = count_macs(routes['merged'], grid).total
                counted[grid, reused] = merged - count_read_once(network)
        return counted[grid, reused]

    def _plain(self, network: nn.Module) -> Run:
        """Every call whole."""

        def run(x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False) -> Tensor:
            stage = self._ready(network, (grid, guided, False), stage_function(network, grid))
            return stage(x, t, None, condition)[0]

        return run

    def _keep_to(self, network: nn.Module) -> None:
        """Forget what was made for another network or device; settle what ``auto`` leaves open."""
        device = next(network.parameters()).device
        known = self._of is not None and self._of[0] is network and self._of[1] == device
        if known and not self._moved(network):
            return
        self._forget((network, device))
        if not self.options['auto'] or device.type != 'cuda':
            return
        if self.options['compile'] is None and network.static_shapes:
            self.compile = {}
        if self.options['dtype'] is None:
            bf16 = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
            self.dtype = 'bfloat16' if bf16 else 'tf32'
        how = f'compiled by {self.compile_by}' if self.compile is not None else 'not compiled'
        _log(f'acceleration: {self.dtype}, {how}; exact float32: model.acceleration.auto=False')

    def _moved(self, network: nn.Module) -> bool:
        """Whether the network has tensors other than those that copies of it share."""
        if not self._tensors:
            return False
        tensors = _tensors_of(network)
        return len(tensors) != len(self._tensors) or any(map(is_not, tensors, self._tensors))

    def _ready(
        self, network: nn.Module, key: tuple, function: Callable, static: bool = True
    ) -> Callable:
        """``function``, which runs ``network``, as the options have it run, made once for a key:
        see ``methods.Ready``."""
        if key in self._stages:
            return self._stages[key]
        plain = function
        if self.compile is not None:
            function = self._compiled(network, function, key)
        if self._copy is not None:
            function, plain = low_precision(function), low_precision(plain)
        if self._kernels is not None:
            function = WithKernels(network, self._kernels, function, plain)
        if self.cuda_graphs:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            function = Captured(function, self._pool)
        if static:
            function = Stage(function, fixed=self.compile is not None or self.cuda_graphs)
        self._stages[key] = function
        return function

    def _compiled(self, network: nn.Module, function: Callable, key: Hashable) -> Callable:
        """``function`` compiled whole, or the layers of ``network`` that it runs: layers of a
        route's own are compiled whole."""
        if self.compile_by == 'stage' or self._linked():
            return compiled_stage(function, key, self.compile)
        if self._layers is None:
            self._layers = CompiledLayers(self.compile)
        layers = self._layers

        def stage(*inputs):
            with layers.of(network):
                return function(*inputs)

        return stage


def _tensors_of(network: nn.Module) -> tuple[Tensor, ...]:
    return (*network.parameters(), *network.buffers())


def _seconds(device: torch.device, function: Callable, times: int = 10) -> float:
    """Of a call, the device's work included."""
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(times):
        function()
    wait()
    return (time.perf_counter() - began) / times


def _log(line: str) -> None:
    print_log(line, 'current')


def check_cuda(device: torch.device, option: str) -> None:
    """Raise ValueError where an option that needs CUDA has none."""
    if device.type != 'cuda':
        raise ValueError(f'{option} needs a CUDA device, the network is on {device}: leave it out.')

"""Ways to run a network quickly: what they may change, and what they must not."""

import contextlib
import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from torch.utils._python_dispatch import TorchDispatchMode

from mmsparsedit.apis import init_model
from mmsparsedit.models import acceleration
from mmsparsedit.models.acceleration import Acceleration
from mmsparsedit.models.cost import trajectory_calls
from mmsparsedit.models.trajectory import tf32_products
from mmsparsedit.nn.blocks import Mlp

from accelerated import NETWORKS, SHALLOW, at_each_stage, build, error, request, sampled
from runs import ROOT


def trained(generator, iteration, batch=4):
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', iteration)
    hub.update_info('seed', 0)
    data = torch.randn(batch, *generator.data_shape, generator=torch.Generator().manual_seed(2))
    generator.zero_grad()
    loss = generator(inputs=data, mode='loss', **request(generator, batch))['loss']
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in generator.parameters() if p.grad is not None]


def compilations():
    return torch._dynamo.utils.counters['stats']['unique_graphs']


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


# -- compilation ----------------------------------------------------------------------------------


@pytest.mark.slow(40)
@pytest.mark.skipif(not shutil.which('g++'), reason='needs g++, which inductor compiles with')
def test_compiled_by_inductor_is_eager_on_every_stage():
    # each kind of layer at each grid costs seconds of g++; other tests have more of both
    generator = build(
        network=SHALLOW,
        prune=dict(type='TimestepPruneScheduler', token_grid=(8, 8), grids=[(6, 5), (3, 3)]),
    )
    expected = at_each_stage(generator)
    generator.accelerate(compile=dict(fullgraph=True))
    for compiled, eager in zip(at_each_stage(generator), expected, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
    once = compilations()
    assert once == 2 * 2 + 1  # generation and recovery on two grids, the last layer
    at_each_stage(generator)
    assert compilations() == once


@pytest.mark.slow(5)
@pytest.mark.parametrize('kind', NETWORKS)
def test_no_compilation_after_the_first_trajectory(kind):
    generator = build(kind, sides=(6, 4), cfg_interval=(200, 700))
    expected = sampled(generator)
    generator.accelerate(compile=dict(backend='eager', fullgraph=True), compile_by='stage')
    torch.testing.assert_close(sampled(generator), expected, rtol=1e-4, atol=1e-4)
    visited = {
        (generator.prune.grid_at(t), generator.guidance.active_at(t))
        for t in generator.sampler.timesteps(generator.diffusion)
    }
    assert compilations() == len(visited) > len(generator.prune.stages)
    # again, and with a smaller last batch, whose samples are those of the whole batch
    sampled(generator)
    part = generator.sample(range(2), **{k: v[:2] for k, v in request(generator, 3).items()})
    torch.testing.assert_close(part, expected[:2], rtol=1e-4, atol=1e-4)
    assert compilations() == len(visited)


@pytest.mark.slow(5)
def test_more_stages_than_the_limit_of_recompilations():
    grids = [(8, n) for n in range(1, 9)] + [(7, 8)]  # the limit is eight
    generator = build(
        network=SHALLOW,
        prune=dict(
            type='TimestepPruneScheduler', token_grid=(8, 8), grids=grids,
            boundaries=[100 * i for i in range(1, 9)],
        )
    )  # fmt: skip
    generator.accelerate(compile=dict(backend='eager', fullgraph=True))
    at_each_stage(generator, batch=1)
    at_each_stage(generator, batch=1)
    # recovery on nine grids; generation of 56 tokens is one on both grids that have as many
    assert compilations() == 9 + 8 + 1


@pytest.mark.slow(6)
def test_training_compiles_once_per_grid():
    generator = build(network=SHALLOW).train()
    expected = [trained(generator, i) for i in range(6)]
    generator.accelerate(compile=dict(backend='aot_eager', fullgraph=True), compile_by='stage')
    for i, (loss, gradients) in enumerate(expected):
        compiled_loss, compiled_gradients = trained(generator, i)
        torch.testing.assert_close(compiled_loss, loss)
        torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-5)
    grids = {generator.training_grid(0, i) for i in range(6)}
    assert compilations() == len(grids) > 2


def test_compiled_functions_stay_out_of_weights_and_copies():
    generator = build(network=SHALLOW, sides=(6, 4))
    keys = list(generator.state_dict())
    generator.accelerate(compile=dict(backend='eager'), dtype='bfloat16')
    sampled(generator)
    assert list(generator.state_dict()) == keys
    assert {name for name, _ in generator.named_children()} == {'data_preprocessor', 'network'}
    twin = copy.deepcopy(generator)
    assert twin.acceleration.options == generator.acceleration.options
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(0.5)
    assert not torch.equal(sampled(twin), sampled(generator))


@pytest.mark.slow(3)
@pytest.mark.parametrize(
    'options', [dict(compile=dict(backend='aot_eager')), dict(dtype='bfloat16')]
)
def test_swapped_weights_are_used(options):
    """EMAHook swaps the data of the weights in place before sampling and back after it."""
    generator = build(network=SHALLOW, sides=(6, 4))
    ema = {key: 0.9 * p.detach() for key, p in generator.network.named_parameters()}
    generator.accelerate(**options)
    before = sampled(generator)
    raw = {key: p.detach().clone() for key, p in generator.network.named_parameters()}
    for key, p in generator.network.named_parameters():
        p.data.copy_(ema[key])
    count = compilations()
    swapped = sampled(generator)
    fresh = build(network=SHALLOW, sides=(6, 4))
    fresh.network.load_state_dict({**fresh.network.state_dict(), **ema})
    fresh.accelerate(**options)
    torch.testing.assert_close(swapped, sampled(fresh), rtol=1e-5, atol=1e-5)
    for key, p in generator.network.named_parameters():
        p.data.copy_(raw[key])
    assert not torch.equal(swapped, before)
    torch.testing.assert_close(sampled(generator), before, rtol=0, atol=0)
    assert count == 0 or compilations() == 2 * count  # the second network's


# -- what is chosen where nothing is said ----------------------------------------------------------


def test_auto_changes_nothing_on_a_cpu():
    plain = build(network=SHALLOW, sides=(6, 4))
    generator = build(network=SHALLOW, sides=(6, 4), acceleration=dict(auto=True))
    assert torch.equal(sampled(generator), sampled(plain))
    assert generator.acceleration.compile is None and generator.acceleration.dtype == 'float32'


@pytest.mark.parametrize(
    'given,capability,compiled,dtype',
    [
        ({}, (9, 0), True, 'bfloat16'),
        ({}, (7, 5), True, 'tf32'),
        (dict(compile=False), (9, 0), False, 'bfloat16'),
        (dict(dtype='float32'), (9, 0), True, 'float32'),
        (dict(auto=False), (9, 0), False, 'float32'),
    ],
)
def test_auto_on_a_gpu(given, capability, compiled, dtype, monkeypatch):
    said = []
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    monkeypatch.setattr(acceleration, '_log', said.append)
    chosen = Acceleration(**{'auto': True, **given})
    weights = [SimpleNamespace(device=torch.device('cuda', 0))]
    network = SimpleNamespace(static_shapes=True, parameters=lambda: iter(weights))
    chosen._keep_to(network)
    chosen._keep_to(network)
    assert (chosen.compile is not None, chosen.dtype) == (compiled, dtype)
    assert [line.split(';')[0] for line in said] == (
        [f'acceleration: {dtype}, {"" if compiled else "not "}compiled' + ' by layer' * compiled]
        if given.get('auto', True)
        else []
    )


def test_tf32_is_of_the_calls_alone():
    seen = []
    before = torch.get_float32_matmul_precision()
    for on, device in ((True, 'cuda'), (False, 'cuda'), (True, 'cpu')):
        with tf32_products(on, torch.device(device)):
            seen.append(torch.get_float32_matmul_precision())
    assert seen == ['high', before, before] and torch.get_float32_matmul_precision() == before


# -- the sampling loop ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    'sampler',
    [dict(type='DDPMSampler', num_steps=8), dict(type='DDIMSampler', num_steps=8, eta=0.5)],
    ids=lambda s: s['type'],
)
@pytest.mark.parametrize('options', [{}, dict(cache_interval=2)], ids=['plain', 'cached'])
def test_no_step_reads_from_the_device(sampler, options):
    """On the meta device any number that the host asked for would be an error."""
    generator = build(sampler=sampler, acceleration=options).to('meta')
    model = generator.denoiser(2, label=torch.tensor([3, 4]))  # looked at before the loop
    noise = torch.zeros(2, *generator.data_shape, device='meta')
    out = generator.sampler(model, noise, generator.diffusion, lambda: noise)
    assert out.device.type == 'meta' and out.shape == noise.shape


# -- CUDA graphs, and all together -----------------------------------------------------------------


@pytest.fixture
def imitated_graphs(monkeypatch):
    """CUDA graphs without CUDA: a replay computes from the captured inputs alone, into outputs
    that it then overwrites at the next replay of any graph. Returns the captured functions."""
    captured = []

    class Graph:
        def replay(self):
            for other in captured:  # one pool: what other graphs left there is gone
                for value in other._result:
                    if value is not None:
                        value.fill_(float('nan'))
            owner = self.owner
            inputs = (owner._x, owner._t, owner._residual, owner._condition)
            for value, new in zip(owner._result, owner._function(*inputs), strict=True):
                if value is not None:
                    value.copy_(new)

    capture = acceleration.Captured._capture

    def recorded(self, *inputs):
        capture(self, *inputs)
        self._graph.owner = self
        captured.append(self)

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(acceleration.Captured, '_capture', recorded)
    monkeypatch.setattr(acceleration, 'check_cuda', lambda device, option: None)
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', Graph)
    monkeypatch.setattr(torch.cuda, 'Stream', Stream)
    monkeypatch.setattr(torch.cuda, 'current_stream', Stream)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, 'graph', lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: (0, 0))
    return captured


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('options', [{}, dict(cache_interval=2, dtype='bfloat16')], ids=str)
def test_one_graph_per_stage_gives_the_same_samples(kind, options, imitated_graphs):
    generator = build(kind, cfg_interval=(200, 700), acceleration=options)
    asked = request(generator, 3)
    other = {key: value.flip(0) for key, value in asked.items()}
    expected = [generator.sample(range(3), **each) for each in (asked, other)]
    generator.accelerate(cuda_graphs=True, **options)
    for each, reference in zip((asked, other, asked), [*expected, expected[0]], strict=True):
        assert torch.equal(generator.sample(range(3), **each), reference)
    assert len(imitated_graphs) == len(set(trajectory_calls(generator)))
    part = generator.sample(range(2), **{key: value[:2] for key, value in asked.items()})
    torch.testing.assert_close(part, expected[0][:2], rtol=1e-4, atol=1e-4)
    assert len(imitated_graphs) == len(set(trajectory_calls(generator)))


@pytest.mark.slow(4)
@pytest.mark.parametrize('compiled', [False, True], ids=['eager', 'compiled'])
def test_levers_together(compiled):
    generator = build(
        sides=(6, 4), cfg_interval=(200, 700), sampler=dict(type='DDIMSampler', num_steps=10)
    )
    generator.accelerate(cache_interval=2)
    expected = sampled(generator)
    options = dict(compile=dict(backend='eager', fullgraph=True)) if compiled else {}
    generator.accelerate(cache_interval=2, dtype='bfloat16', **options)
    assert error(sampled(generator), expected) < 5e-2
    first = compilations()
    sampled(generator)
    assert compilations() == first


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(dtype='float16'), "dtype must be one of .*got 'float16'"),
        (dict(fp8=True), 'fp8 needs dtype bfloat16'),
        (dict(compile=dict(mode='reduce-overhead')), 'use cuda_graphs=True'),
        (dict(compile_by='block'), "compile_by must be one of .*got 'block'"),
        (dict(stream='bfloat16'), 'stream bfloat16 needs dtype bfloat16 too'),
        (dict(gelu_epilogue=True), 'gelu_epilogue is for bf16 products'),
        (dict(attention='flash'), "attention must be one of .*got 'flash'"),
        (dict(cache_interval=0), 'got 0'),
        (dict(cache_interval=1.5), 'got 1.5'),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Acceleration(**options)


def gelus(function):
    """What a function returns; how many GELUs oneDNN's product computed, how many were apart."""
    names = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    with Seen():
        result = function()
    return result, *map(names.count, ('mkldnn._linear_pointwise.default', 'aten.gelu.default'))


def mlps(network):
    return [module for module in network.modules() if isinstance(module, Mlp)]


@pytest.mark.parametrize('kind', NETWORKS)
def test_sampling_on_a_cpu_leaves_the_gelu_to_a_product(kind):
    generator = build(kind)
    fused, inside, _ = gelus(lambda: sampled(generator))
    calls = len(generator.sampler.timesteps(generator.diffusion))
    assert inside == len(mlps(generator.network)) * calls
    # whoever calls or counts the network finds it plain
    assert not any(mlp.gelu_epilogue for mlp in mlps(generator.network))
    generator.accelerate(gelu_epilogue=False)
    plain, inside, apart = gelus(lambda: sampled(generator))
    assert inside == 0 < apart and error(fused, plain) < 1e-5


@pytest.mark.parametrize(
    'options',
    [dict(method=dict(type='FORA', interval=4)), dict(merge=dict(type='TokenMerging', ratio=0.2))],
    ids=['method', 'merge'],
)
def test_layers_that_a_method_made_leave_it_too(options):
    generator = build(sides=(6,) * 4, acceleration=options)
    fused, inside, apart = gelus(lambda: sampled(generator))
    assert apart == 0
    generator.accelerate(**options, gelu_epilogue=False)
    plain, none, apart = gelus(lambda: sampled(generator))
    assert none == 0 and inside == apart and error(fused, plain) < 1e-5


def test_a_product_with_gelu_takes_what_autocast_lowered():
    torch.manual_seed(0)
    mlp, x = Mlp(32, 4), torch.randn(2, 3, 32).bfloat16()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        plain = mlp(x)
        mlp.gelu_epilogue = True
        fused = mlp(x)
    assert fused.dtype == plain.dtype == torch.bfloat16 and error(fused, plain) < 1e-2


def test_what_cannot_work_here_is_named():
    dense = {**NETWORKS['dit'], 'num_sdtm': 0}
    with pytest.raises(ValueError, match='spares the middle segment, and the network has none'):
        build(network=dense, prune=None, acceleration=dict(cache_interval=2))
    with pytest.raises(ValueError, match='cuda_graphs needs a CUDA device'):
        sampled(build(acceleration=dict(cuda_graphs=True)))
    with pytest.raises(ValueError, match='gelu_epilogue needs a CUDA device'):
        sampled(build(acceleration=dict(gelu_epilogue=True, dtype='bfloat16')))


def test_static_shapes_refuse_packed_captions():
    generator = init_model(ROOT / 'configs/sparsepixart/captioned_digits.py')
    with pytest.raises(ValueError, match='set pack_captions=False, the numbers are the same'):
        generator.accelerate(compile=True)
    assert generator.acceleration.compile is None

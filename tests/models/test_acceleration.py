"""Ways to run a network quickly: what they may change, and what they must not."""

import contextlib
import copy
import shutil

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmsparsedit.apis import init_model
from mmsparsedit.apis.cost import trajectory_calls
from mmsparsedit.models import acceleration
from mmsparsedit.models.acceleration import Acceleration, SamplingCopy, fp8_layers
from mmsparsedit.nn.step_cache import StepCache
from mmsparsedit.registry import MODELS

from runs import ROOT

IMAGE = dict(
    input_size=8, patch_size=1, in_channels=1, hidden_size=32, num_heads=2,
    num_bottom=1, num_sdtm=1, num_top=1,
)  # fmt: skip
NETWORKS = {
    'dit': dict(
        type='SparseDiT', num_classes=10, **IMAGE, sdtm=dict(type='SDTM', block_counts=(1, 1, 1, 0))
    ),
    'pixart': dict(
        type='SparsePixArt', caption_channels=16, model_max_length=5, **IMAGE,
        sdtm=dict(type='CaptionSDTM', block_counts=(1, 1, 1, 0)),
    ),
    'latte': dict(
        type='SparseLatte', num_frames=4, num_classes=10,
        **{**IMAGE, 'num_bottom': 2, 'num_top': 0},
        sdtm=dict(type='FactorisedSDTM', num_sparse=0),
    ),
}  # fmt: skip


def build(kind='dit', **overrides):
    torch.manual_seed(0)
    video = kind == 'latte'
    config = dict(
        type='TextToImageGenerator' if kind == 'pixart' else 'DiffusionGenerator',
        network=NETWORKS[kind],
        diffusion=dict(type='GaussianDiffusion', channel_dim=2 if video else 1),
        sampler=dict(type='DDPMSampler', num_steps=8),
        prune=dict(
            type='TimestepPruneScheduler',
            token_grid=(4, 8, 8) if video else (8, 8),
            grids=[(*((2,) if video else ()), side, side) for side in (6, 5, 4, 3)],
        ),
        cfg_scale=2.0,
    )  # fmt: skip
    generator = MODELS.build({**config, **overrides})
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return generator.eval()


def request(generator, batch):
    draw = torch.Generator().manual_seed(1)
    if hasattr(generator, 'text_encoder'):
        mask = torch.ones(batch, 5, dtype=torch.long)
        mask[:, 3:] = 0
        return dict(y=torch.randn(batch, 5, 16, generator=draw), mask=mask)
    return dict(label=torch.arange(batch) % 10)


def sampled(generator, batch=3):
    return generator.sample(range(batch), **request(generator, batch))


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


def at_each_stage(generator, batch=2):
    """The guided output of the network at one timestep of each stage."""
    model = generator.denoiser(batch, **request(generator, batch))
    x = torch.randn(batch, *generator.data_shape, generator=torch.Generator().manual_seed(3))
    return [model(x, stage.t_start) for stage in generator.prune.stages]


# -- compilation ----------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which('g++'), reason='needs g++, which inductor compiles with')
def test_compiled_by_inductor_is_eager_on_every_stage():
    # each kind of layer at each grid costs seconds of g++; other tests have more of both
    generator = build(
        network={
            **NETWORKS['dit'],
            **dict(num_bottom=0, num_top=0, sdtm=dict(type='SDTM', block_counts=(1, 0, 1, 0))),
        },
        prune=dict(type='TimestepPruneScheduler', token_grid=(8, 8), grids=[(6, 5), (3, 3)]),
    )
    expected = at_each_stage(generator)
    generator.accelerate(compile=dict(fullgraph=True))
    for compiled, eager in zip(at_each_stage(generator), expected, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
    once = compilations()
    assert once == 2
    at_each_stage(generator)
    assert compilations() == once


@pytest.mark.parametrize('kind', NETWORKS)
def test_no_compilation_after_the_first_trajectory(kind):
    generator = build(kind, cfg_interval=(200, 700))
    expected = sampled(generator)
    generator.accelerate(compile=dict(backend='eager', fullgraph=True))
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


def test_more_stages_than_the_limit_of_recompilations():
    grids = [(8, n) for n in range(1, 9)] + [(7, 8)]  # the limit is eight
    generator = build(
        prune=dict(
            type='TimestepPruneScheduler', token_grid=(8, 8), grids=grids,
            boundaries=[100 * i for i in range(1, 9)],
        )
    )  # fmt: skip
    generator.accelerate(compile=dict(backend='eager', fullgraph=True))
    at_each_stage(generator, batch=1)
    at_each_stage(generator, batch=1)
    assert compilations() == 9


def test_training_compiles_once_per_grid():
    generator = build(network={**NETWORKS['dit'], 'num_top': 0}).train()
    expected = [trained(generator, i) for i in range(6)]
    generator.accelerate(compile=dict(backend='aot_eager', fullgraph=True))
    for i, (loss, gradients) in enumerate(expected):
        compiled_loss, compiled_gradients = trained(generator, i)
        torch.testing.assert_close(compiled_loss, loss)
        torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-5)
    grids = {generator.training_grid(0, i) for i in range(6)}
    assert compilations() == len(grids) > 2


def test_compiled_functions_stay_out_of_weights_and_copies():
    generator = build()
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


@pytest.mark.parametrize(
    'options', [dict(compile=dict(backend='aot_eager')), dict(dtype='bfloat16')]
)
def test_swapped_weights_are_used(options):
    """EMAHook swaps the data of the weights in place before sampling and back after it."""
    generator = build()
    ema = {key: 0.9 * p.detach() for key, p in generator.network.named_parameters()}
    generator.accelerate(**options)
    before = sampled(generator)
    raw = {key: p.detach().clone() for key, p in generator.network.named_parameters()}
    for key, p in generator.network.named_parameters():
        p.data.copy_(ema[key])
    count = compilations()
    swapped = sampled(generator)
    fresh = build()
    fresh.network.load_state_dict({**fresh.network.state_dict(), **ema})
    fresh.accelerate(**options)
    torch.testing.assert_close(swapped, sampled(fresh), rtol=1e-5, atol=1e-5)
    for key, p in generator.network.named_parameters():
        p.data.copy_(raw[key])
    assert not torch.equal(swapped, before)
    torch.testing.assert_close(sampled(generator), before, rtol=0, atol=0)
    assert count == 0 or compilations() == 2 * count  # the second network's


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


# -- bf16 and fp8 ---------------------------------------------------------------------------------


def error(output, reference):
    """Root mean square deviation over root mean square."""
    return ((output - reference).square().mean() / reference.square().mean()).sqrt().item()


@pytest.mark.parametrize('kind', NETWORKS)
def test_bf16_deviates_by_its_rounding(kind):
    generator = build(kind)
    expected = at_each_stage(generator)
    generator.accelerate(dtype='bfloat16')
    for output, reference in zip(at_each_stage(generator), expected, strict=True):
        assert output.dtype == torch.float32
        assert 1e-5 < error(output, reference) < 2e-2  # bf16 rounds to 2 ** -9 = 2e-3


def test_bf16_keeps_timestep_and_last_layer_in_float32():
    network = build().network
    taken = SamplingCopy(network, torch.bfloat16)
    taken.take_weights(network)
    t, c, x = torch.tensor([0.0, 999.0]), torch.randn(2, 32), torch.randn(2, 64, 32)
    with torch.autocast('cpu', torch.bfloat16):
        embedded, last = taken.network.t_embedder(t), taken.network.final_layer(x, c)
    assert torch.equal(embedded, network.t_embedder(t))
    assert torch.equal(last, network.final_layer(x, c))
    assert taken.network.top[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert network.top[0].mlp.fc1.weight.dtype == torch.float32


@pytest.mark.parametrize('kind', NETWORKS)
def test_fp8_takes_the_large_linears_only(kind):
    names = set(fp8_layers(build(kind).network))
    assert {'middle.0.recovery.0.mlp.fc1', 'bottom.0.mlp.fc2'} <= names
    assert ('middle.0.sparse.0.attn.qkv' in names) == (kind != 'latte')  # it has none here
    assert 'middle.0.generation.0.attn.proj' in names
    assert ('middle.0.recovery.0.cross_attn.q_linear' in names) == (kind == 'pixart')
    for left in ('embedder', 'final_layer', 'adaLN', 't_block', 'merge_', 'attn.v', 'kv_linear'):
        assert not [name for name in names if left in name]
    assert not {'middle.0.generation.0.attn.qkv', 'middle.0.recovery.0.attn.qkv'} & names


def test_fp8_needs_its_gpu():
    generator = build(acceleration=dict(fp8=True, dtype='bfloat16'))
    with pytest.raises(ValueError, match='capability 8.9 or above .*the network is on cpu'):
        sampled(generator)


def test_fp8_follows_the_weights(monkeypatch):
    """The numbers of float8 on the CPU: torchao's check of the hardware is passed by."""
    quant_api = pytest.importorskip('torchao.quantization.quant_api')
    monkeypatch.setattr(quant_api, '_check_hardware_support', lambda granularity: None)
    monkeypatch.setattr(acceleration, 'check_fp8', lambda device: None)
    generator = build()
    expected = at_each_stage(generator)
    generator.accelerate(fp8=True, dtype='bfloat16')
    first = at_each_stage(generator)
    bf16 = build(acceleration=dict(dtype='bfloat16'))
    for output, half, reference in zip(first, at_each_stage(bf16), expected, strict=True):
        assert error(half, reference) < error(output, reference) < 0.2
    weight = generator.acceleration._copy.network.top[0].mlp.fc1.weight
    with torch.no_grad():
        for p in generator.network.parameters():
            p.mul_(0.9)
    second = at_each_stage(generator)
    assert generator.acceleration._copy.network.top[0].mlp.fc1.weight is weight
    for output, reference in zip(second, at_each_stage(bf16), strict=True):
        assert not torch.equal(output, reference)
    bf16.network.load_state_dict(generator.network.state_dict())
    for output, reference in zip(second, at_each_stage(bf16), strict=True):
        assert error(output, reference) < 0.2


# -- the step cache -------------------------------------------------------------------------------


def test_which_calls_the_cache_skips():
    keys = ['a'] * 5 + ['b'] * 2 + ['a']
    assert StepCache(1).plan(keys) == [False] * 8
    assert StepCache(2).plan(keys) == [False, True, False, True, False, False, True, False]
    assert StepCache(9).plan(keys) == [False, True, True, True, True, False, True, False]
    with pytest.raises(ValueError, match='interval of the step cache .* got 0'):
        StepCache(0)


class Counter(nn.Module):
    """A module of the middle that counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *arguments):
        self.calls += 1
        return self.inner(*arguments)


@pytest.mark.parametrize('kind', NETWORKS)
def test_the_cache_runs_the_middle_as_planned(kind):
    generator = build(kind)
    expected = sampled(generator)
    generator.accelerate(cache_interval=1)
    assert torch.equal(sampled(generator), expected)
    counter = generator.network.middle[0] = Counter(generator.network.middle[0])
    generator.accelerate(cache_interval=3)
    cached = sampled(generator)
    calls = generator.sampler.timesteps(generator.diffusion)
    plan = StepCache(3).plan([(generator.prune.grid_at(t), True) for t in calls])
    assert counter.calls == plan.count(False) < len(calls)
    assert not torch.equal(cached, expected)


def test_a_cached_step_adds_the_residual_of_the_one_before():
    generator = build(acceleration=dict(cache_interval=2))
    network = generator.network
    asked = request(generator, 2)
    x1, x2 = torch.randn(2, 2, 1, 8, 8)
    first, second = generator.prune.stages[0].t_end - 1, generator.prune.stages[0].t_end - 2
    model = generator.denoiser(2, **asked)
    model(x1, first)
    output = model(x2, second)

    entered = []
    hook = network.middle[0].register_forward_pre_hook(lambda m, args: entered.append(args[0]))
    left = []
    out = network.middle[0].register_forward_hook(lambda m, args, result: left.append(result))
    plain = build()
    generator.accelerate()
    generator.denoiser(2, **asked)(x1, first)
    hook.remove(), out.remove()
    residual = left[0] - entered[0]

    class Add(nn.Module):
        def forward(self, x, *rest):
            return x + residual

    plain.network.middle = nn.ModuleList([Add()])
    assert torch.equal(output, plain.denoiser(2, **asked)(x2, second))


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

    capture = acceleration._Captured._capture

    def recorded(self, *inputs):
        capture(self, *inputs)
        self._graph.owner = self
        captured.append(self)

    class Stream:
        def wait_stream(self, other):
            pass

    monkeypatch.setattr(acceleration._Captured, '_capture', recorded)
    monkeypatch.setattr(acceleration, 'check_cuda', lambda device: None)
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


@pytest.mark.parametrize('compiled', [False, True], ids=['eager', 'compiled'])
def test_levers_together(compiled):
    generator = build(cfg_interval=(200, 700), sampler=dict(type='DDIMSampler', num_steps=10))
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
        (dict(cache_interval=0), 'got 0'),
        (dict(cache_interval=1.5), 'got 1.5'),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Acceleration(**options)


def test_what_cannot_work_here_is_named():
    dense = {**NETWORKS['dit'], 'num_sdtm': 0}
    with pytest.raises(ValueError, match='cache_interval 2 caches the middle'):
        build(network=dense, prune=None, acceleration=dict(cache_interval=2))
    with pytest.raises(ValueError, match='cuda_graphs needs a CUDA device'):
        sampled(build(acceleration=dict(cuda_graphs=True)))


def test_static_shapes_refuse_packed_captions():
    generator = init_model(ROOT / 'configs/sparsepixart/captioned_digits.py')
    with pytest.raises(ValueError, match='set pack_captions=False, the numbers are the same'):
        generator.accelerate(compile=True)
    assert generator.acceleration.compile is None

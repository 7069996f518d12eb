"""Compilation layer by layer: how much is traced, what stays whole, what the numbers are."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from mmsparsedit.engine import FullyShardedModel
from mmsparsedit.engine.recompute import recompute_layers
from mmsparsedit.models.compilation import CompiledLayers

from accelerated import NETWORKS, build, sampled

DEEP = dict(num_bottom=2, num_sdtm=2, num_top=2)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def one_process():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def traced():
    return counters['stats']['unique_graphs'], sum(counters['graph_break'].values())


def deep(kind, **overrides):
    network = {**NETWORKS[kind], **DEEP}
    return build(kind, sides=(6, 4), network=network, **overrides)


@pytest.mark.slow(8)
@pytest.mark.parametrize('kind,fixed,by_grid', [('dit', 3, 3), ('pixart', 3, 3), ('latte', 5, 4)])
def test_layers_share_what_is_traced(kind, fixed, by_grid):
    """Bottom, top and last layer once (in space and in time); generation, sparse layers and
    recovery once for each grid: whatever the depth."""
    generator = deep(kind, cfg_interval=None)
    expected = sampled(generator)
    generator.accelerate(compile=dict(backend='eager'))
    torch.testing.assert_close(sampled(generator), expected, rtol=1e-5, atol=1e-5)
    assert traced() == (fixed + 2 * by_grid, 0)
    sampled(generator)
    assert traced() == (fixed + 2 * by_grid, 0)
    assert not [layer for _, layer in generator.network.named_layers() if 'forward' in vars(layer)]


def gradients(run, network, inputs, grid):
    network.zero_grad()
    run(**inputs, grid=grid).square().mean().backward()
    return [p.grad.clone() for p in network.parameters()]


def training_inputs(kind):
    generator = deep(kind).train()
    inputs = generator.network.example_inputs(2)
    torch.manual_seed(0)
    inputs['x'] = torch.randn_like(inputs['x'])
    return generator, inputs, [stage.grid for stage in generator.prune.stages[:1]]


def compiled(network, layers, backend='aot_eager'):
    def run(**inputs):
        with layers.of(network):
            return network(**inputs)

    return run


@pytest.mark.slow(8)
@pytest.mark.parametrize('kind', NETWORKS)
def test_recomputed_layers_are_compiled(kind):
    generator, inputs, grids = training_inputs(kind)
    network = generator.network
    expected = [gradients(network, network, inputs, grid) for grid in grids]
    recompute_layers(network)
    run = compiled(network, CompiledLayers(dict(backend='aot_eager')))
    for grid, wanted in zip(grids, expected, strict=True):
        found = gradients(run, network, inputs, grid)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    count, breaks = traced()
    gradients(run, network, inputs, grids[0])
    assert traced() == (count, breaks) and breaks == 0
    assert all('forward' in vars(layer) for _, layer in network.named_layers())


@pytest.mark.slow(10)
@pytest.mark.parametrize('wrapped', ['ddp', 'fsdp'])
@pytest.mark.parametrize('kind', NETWORKS)
def test_no_break_in_wrapped_networks(kind, wrapped, one_process):
    generator, inputs, grids = training_inputs(kind)
    network = generator.network
    expected = [gradients(network, network, inputs, grid) for grid in grids]
    generator.accelerate(compile=dict(backend='aot_eager'))
    if wrapped == 'fsdp':
        network = FullyShardedModel(generator).module.network
        step = functools.partial(step_of, generator)
    else:
        step = DistributedDataParallel(Step(generator))
    for grid, wanted in zip(grids, expected, strict=True):
        for _ in range(2):
            network.zero_grad()
            step(inputs, grid).square().mean().backward()
            found = [p.grad.full_tensor() if hasattr(p.grad, 'full_tensor') else p.grad
                     for p in network.parameters()]  # fmt: skip
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    count, breaks = traced()
    step(inputs, grids[0]).sum().backward()
    assert traced() == (count, breaks) and breaks == 0


def step_of(generator, inputs, grid):
    x, t, *_ = inputs.values()
    condition = {key: value for key, value in inputs.items() if key not in ('x', 't')}
    return generator.acceleration.train(generator.network, x, t, grid, condition)


class Step(torch.nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, inputs, grid):
        return step_of(self.generator, inputs, grid)


def test_a_foreign_forward_is_refused():
    network = build().network
    network.top[0].forward = print
    with pytest.raises(ValueError, match="a forward of its own.*set compile_by='stage'"):
        with CompiledLayers({}).of(network):
            pass
    assert network.top[0].forward is print and 'forward' not in vars(network.bottom[0])

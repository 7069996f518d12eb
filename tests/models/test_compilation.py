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


def deep(kind, sides):
    return build(kind, sides=sides, network={**NETWORKS[kind], **DEEP})


@pytest.mark.slow(8)
@pytest.mark.parametrize(
    'kind,sides,fixed,by_grid',
    [('dit', (6, 4), 3, 3), ('pixart', (6,), 3, 3), ('latte', (6,), 5, 4)],
)
def test_layers_share_what_is_traced(kind, sides, fixed, by_grid):
    """Bottom, top and last layer once (in space and in time); generation, sparse layers and
    recovery once for each grid: whatever the depth."""
    generator = deep(kind, sides)
    generator.accelerate(gelu_epilogue=False)  # the operations that are traced
    expected = sampled(generator)
    generator.accelerate(compile=dict(backend='eager'))
    torch.testing.assert_close(sampled(generator), expected, rtol=1e-5, atol=1e-5)
    assert traced() == (fixed + len(sides) * by_grid, 0)
    sampled(generator)
    assert traced() == (fixed + len(sides) * by_grid, 0)
    assert not [layer for _, layer in generator.network.named_layers() if 'forward' in vars(layer)]


def gradients(run, network, inputs, grid):
    network.zero_grad()
    run(**inputs, grid=grid).square().mean().backward()
    return [p.grad.clone() for p in network.parameters()]


def training_inputs(kind):
    generator = build(kind, sides=(6,)).train()
    inputs = generator.network.example_inputs(2)
    torch.manual_seed(0)
    inputs['x'] = torch.randn_like(inputs['x'])
    return generator, inputs, generator.prune.stages[0].grid


@pytest.mark.slow(4)
def test_recomputed_layers_are_compiled():
    generator, inputs, grid = training_inputs('dit')
    network = generator.network
    expected = gradients(network, network, inputs, grid)
    recompute_layers(network)
    layers = CompiledLayers(dict(backend='aot_eager'))

    def run(**inputs):
        with layers.of(network):
            return network(**inputs)

    torch.testing.assert_close(
        gradients(run, network, inputs, grid), expected, rtol=1e-4, atol=1e-5
    )
    count, breaks = traced()
    gradients(run, network, inputs, grid)
    assert traced() == (count, breaks) and breaks == 0
    assert all('forward' in vars(layer) for _, layer in network.named_layers())


@pytest.mark.slow(10)
@pytest.mark.parametrize('wrapped', ['ddp', 'fsdp'])
@pytest.mark.parametrize('kind', NETWORKS)
def test_no_break_in_wrapped_networks(kind, wrapped, one_process):
    """Under FSDP the layers are recomputed too."""
    generator, inputs, grid = training_inputs(kind)
    network = generator.network
    expected = gradients(network, network, inputs, grid)
    generator.accelerate(compile=dict(backend='eager'))
    if wrapped == 'fsdp':
        network = FullyShardedModel(generator).module.network
        recompute_layers(network)
        step = functools.partial(step_of, generator)
    else:
        step = DistributedDataParallel(Step(generator))
    counts = []
    for _ in range(3):
        network.zero_grad()
        step(inputs, grid).square().mean().backward()
        found = [p.grad.full_tensor() if hasattr(p.grad, 'full_tensor') else p.grad
                 for p in network.parameters()]  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        counts.append(traced())
    assert counts[0] == counts[2] and counts[0][1] == 0


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

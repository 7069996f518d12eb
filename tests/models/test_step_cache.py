"""The step cache: which calls it skips, and what stands in for them."""

import pytest
import torch
from torch import nn

from mmsparsedit.models.methods import ResidualCache

from accelerated import NETWORKS, build, request, sampled


def test_which_calls_the_cache_skips():
    keys = ['a'] * 5 + ['b'] * 2 + ['a']
    assert ResidualCache(1).plan(keys) == [False] * 8
    assert ResidualCache(2).plan(keys) == [False, True, False, True, False, False, True, False]
    assert ResidualCache(9).plan(keys) == [False, True, True, True, True, False, True, False]
    with pytest.raises(ValueError, match='interval of the step cache .* got 0'):
        ResidualCache(0)


class Counter(nn.Module):
    """A module of the middle that counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *arguments, **grids):
        self.calls += 1
        return self.inner(*arguments, **grids)

    def layers(self):
        return self.inner.layers()


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
    plan = ResidualCache(3).plan([(generator.prune.grid_at(t), True) for t in calls])
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
        def forward(self, x, *rest, **grids):
            return x + residual

    plain.network.middle = nn.ModuleList([Add()])
    assert torch.equal(output, plain.denoiser(2, **asked)(x2, second))

"""FirstBlockCache and TeaCache: what is judged, and what follows."""

import pytest
import torch

from mmsparsedit.models.cost import macs_by_grid, trajectory_calls, trajectory_macs
from mmsparsedit.models.methods import FirstBlockCache, TeaCache
from mmsparsedit.models.methods.deciding import FirstBlockJudge, TeaCacheJudge
from mmsparsedit.nn.blocks import modulate

from accelerated import NETWORKS, build, request, sampled


def judged(judge, *seen):
    """Decisions on (stage, value) pairs; what is seen is one number."""
    return [judge.reuses(stage, torch.tensor([value])) for stage, value in seen]


def test_the_first_block_is_compared_with_the_last_whole_call():
    steps = [('a', 1.0), ('a', 1.09), ('a', 1.11), ('a', 1.2), ('b', 1.2), ('b', 1.2)]
    # 1.11 is 11 % off 1.0, 1.2 is 8 % off 1.11
    assert judged(FirstBlockJudge(0.1), *steps) == [False, True, False, True, False, True]
    assert not any(judged(FirstBlockJudge(0.0), ('a', 1.0), ('a', 1.1)))


def test_teacache_sums_changes_from_call_to_call():
    steps = [('a', value) for value in (1.0, 1.1, 1.21, 1.331, 1.331, 1.331)]
    # 0.1, 0.2, 0.3: whole at the fourth; the last is whole anyway
    found = judged(TeaCacheJudge(0.25, (1, 0), 6), *steps)
    assert found == [False, True, True, False, True, False]
    # the polynomial 2 x + 0.04 makes 0.24 of 0.1 and 0.04 of 0
    found = judged(TeaCacheJudge(0.25, (2, 0.04), 6), *steps)
    assert found == [False, True, False, True, False, False]
    assert judged(TeaCacheJudge(9, (1, 0), 9), *steps[:2], ('b', 1.21)) == [False, True, False]


@torch.no_grad()
def test_teacache_looks_at_what_the_first_attention_reads():
    network = build().network
    parts = TeaCache(1).parts(network)
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor([5.0, 600.0]), torch.tensor([3, 10])
    tokens, c, seen = parts.begin(x, t, (4, 4), dict(y=y))
    layer = network.bottom[0]
    shift, scale, *_ = layer.adaLN_modulation(c)
    assert torch.equal(seen, modulate(layer.norm1(tokens), shift, scale))
    assert torch.equal(tokens, network.embed(x, t, y)[0])


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('method', [FirstBlockCache, TeaCache])
@torch.no_grad()
def test_both_halves_make_the_network(method, kind):
    generator = build(kind)
    network, grid = generator.network, generator.prune.grids[1]
    x = torch.randn(2, *generator.data_shape)
    inputs = x, torch.tensor([30.0, 700.0])
    condition = generator.condition(**request(generator, 2))
    parts = method(0.1).parts(network)
    output, kept = parts.compute(*inputs, grid, condition)
    assert torch.equal(output, network(*inputs, grid=grid, **condition))
    torch.testing.assert_close(parts.reuse(*inputs, kept, grid, condition), output)


@pytest.mark.parametrize('name', ['FirstBlockCache', 'TeaCache'])
def test_thresholds_at_both_ends(name):
    generator = build(sides=(6, 4), cfg_interval=(300, 1000))
    plain = sampled(generator)
    generator.accelerate(method=dict(type=name, threshold=0.0))
    with pytest.raises(ValueError, match='its cost is known once something has been sampled'):
        trajectory_calls(generator)
    torch.testing.assert_close(sampled(generator), plain)
    assert not any(call.reused for call in trajectory_calls(generator))
    generator.accelerate(method=dict(type=name, threshold=1e9))
    sampled(generator)
    calls = trajectory_calls(generator)
    stages = [(call.grid, call.guided) for call in calls]
    expected = [i > 0 and stages[i - 1] == stage for i, stage in enumerate(stages)]
    if name == 'TeaCache':
        expected[-1] = False
    assert [call.reused for call in calls] == expected and sum(expected) >= 3


def test_cost_is_the_mean_of_what_was_sampled():
    generator = build(sides=(5,), acceleration=dict(method=dict(type='TeaCache', threshold=1e9)))
    made = generator.acceleration.method.made
    made += [(3, [False] * 8), (1, [False] + [True] * 7)]
    generator.network.requires_grad_(False)
    mean = trajectory_macs(generator, macs_by_grid(generator))
    costs = []
    for each in made[:]:
        made[:] = [each]
        costs.append(trajectory_macs(generator, macs_by_grid(generator)))
    assert mean == pytest.approx((3 * costs[0] + costs[1]) / 4, abs=1) and costs[0] > costs[1]

"""What all methods share: every network, guidance, stages, precision, compilation, exact cost."""

import pytest
import torch

from mmsparsedit.models.cost import (
    call_macs,
    macs_by_grid,
    network_macs,
    trajectory_calls,
    trajectory_macs,
)
from mmsparsedit.models.methods import (
    FORA,
    FirstBlockCache,
    ResidualCache,
    TeaCache,
    part_macs,
)

from accelerated import NETWORKS, build, error, sampled

MERGE = dict(type='TokenMerging', ratio=0.5)
OPTIONS = {
    'residual': dict(method=dict(type='ResidualCache', interval=2)),
    'fora': dict(method=dict(type='FORA', interval=3)),
    'taylor': dict(method=dict(type='TaylorSeer', interval=2, order=1, warm_up=1)),
    'first block': dict(method=dict(type='FirstBlockCache', threshold=9.0)),
    'tea': dict(method=dict(type='TeaCache', threshold=1.0)),
    'merge': dict(merge=MERGE),
    'merge and fora': dict(merge=MERGE, method=dict(type='FORA', interval=3)),
}


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('name', OPTIONS)
def test_every_method_runs_on_every_network(name, kind):
    options = OPTIONS[name]
    if kind == 'latte' and 'merge' in options:
        pytest.skip('clips do not merge')
    generator = build(kind, sides=(6, 4), cfg_interval=(200, 700))
    plain = sampled(generator)
    cost = trajectory_macs(generator, macs_by_grid(generator))
    generator.accelerate(**options)
    fast = sampled(generator)
    assert torch.equal(sampled(generator), fast)  # nothing is left over from the last trajectory
    assert 0 < error(fast, plain) < 0.1
    reused = [call.reused for call in trajectory_calls(generator)]
    assert any(reused) == ('method' in options) and not reused[0]
    if name != 'merge':  # on 64 tokens of width 32 the matching costs about what it saves
        assert trajectory_macs(generator, macs_by_grid(generator)) < cost


@pytest.mark.slow(5)
@pytest.mark.parametrize('name', OPTIONS)
def test_levers_go_together(name):
    exact = dict(OPTIONS[name], gelu_epilogue=False)  # the operations that are compiled
    generator = build(sides=(6, 4), cfg_interval=(200, 700), acceleration=exact)
    expected = sampled(generator)
    generator.accelerate(**OPTIONS[name], compile=dict(backend='eager', fullgraph=True))
    torch.testing.assert_close(sampled(generator), expected)
    generator.accelerate(**OPTIONS[name], dtype='bfloat16')
    assert error(sampled(generator), expected) < 5e-2


def test_weights_that_change_are_followed():
    generator = build(acceleration=dict(merge=MERGE, method=dict(type='FORA', interval=3)))
    sampled(generator)
    with torch.no_grad():
        for p in generator.parameters():
            p.mul_(1.01)
    fresh = build(acceleration=generator.acceleration.options)
    fresh.load_state_dict(generator.state_dict())
    expected = sampled(fresh)
    torch.testing.assert_close(sampled(generator), expected)
    generator.network.top[0].mlp.fc1.weight = torch.nn.Parameter(torch.zeros(128, 32))
    fresh.network.top[0].mlp.fc1.weight.data.zero_()
    torch.testing.assert_close(sampled(generator), sampled(fresh))


# -- cost -----------------------------------------------------------------------------------------

C, N, P = 32, 64, 1  # width, tokens, values of a patch (and in: 1, out: 2)
EMBED = N * P * C + 256 * C + C * C  # patches, timestep
HEAD = 2 * C * C + N * C * 2 * P
MODULATION = 6 * C * C


def dense():
    network = {**NETWORKS['dit'], 'num_bottom': 0, 'num_sdtm': 0, 'num_top': 3}
    return build(network=network, prune=None)


def layer(tokens):
    """MACs of a dense layer's attention and MLP."""
    return 4 * C * C * tokens + 2 * tokens * tokens * C, 8 * C * C * tokens


def test_what_a_spared_call_costs():
    network = dense().network
    whole = EMBED + 3 * (sum(layer(N)) + MODULATION) + HEAD
    assert network_macs(network).total == whole
    expected = {
        FORA(2): (whole, EMBED + 3 * MODULATION + HEAD),
        ResidualCache(2, 1, 1): (whole, EMBED + 2 * (sum(layer(N)) + MODULATION) + HEAD),
        FirstBlockCache(1): (whole, EMBED + sum(layer(N)) + MODULATION + HEAD),
        TeaCache(1): (whole + MODULATION, EMBED + MODULATION + HEAD),
    }
    for method, costs in expected.items():
        parts = method.parts(network)
        assert tuple(part_macs(parts, network, None, r) for r in (False, True)) == costs, method


def test_what_merging_costs():
    generator = dense()
    generator.accelerate(merge=MERGE)
    attention, _ = layer(N // 2)
    matching = (N - N // 4) * (N // 4) * C
    one = EMBED + 3 * (matching + attention + layer(N)[1] + MODULATION) + HEAD
    assert generator.acceleration.call_macs(generator.network, None, False) == one
    calls = trajectory_calls(generator)
    assert set(call_macs(generator, calls, {None: 0}).values()) == {2 * one}
    assert trajectory_macs(generator, {None: 0}) == 8 * 2 * one


def test_cost_of_a_sparse_stage_is_that_of_its_grid():
    generator = build(sides=(6, 4), acceleration=OPTIONS['taylor'])
    by_grid = macs_by_grid(generator)
    calls = trajectory_calls(generator)
    macs = call_macs(generator, calls, by_grid)
    for call in calls:
        if not call.reused:
            assert macs[call] == 2 * by_grid[call.grid]
    # spared calls differ by W1 of the recovery, on M tokens
    spared = {call.grid: macs[call] for call in calls if call.reused}
    assert spared[6, 6] - spared[4, 4] == 2 * (36 - 16) * C * C

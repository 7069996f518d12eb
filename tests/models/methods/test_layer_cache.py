"""FORA and TaylorSeer: which calls they compute, and what stands in for the others."""

import pytest
import torch

from mmsparsedit.models.methods import FORA, TaylorSeer
from mmsparsedit.models.methods.layer_cache import LayerParts, TaylorMemory
from mmsparsedit.models.methods.linked import blocks_of

from accelerated import NETWORKS, build, request, sampled


def whole(method, stages):
    return [i for i, reused in enumerate(method.plan(stages)) if not reused]


def test_calls_that_fora_computes():
    """Steps are counted down: 0 is the last of the trajectory, as in the public code."""
    assert whole(FORA(3), 'a' * 10) == [0, 3, 6, 9]
    assert whole(FORA(3), 'a' * 11) == [0, 1, 4, 7, 10]
    assert whole(FORA(3), 'a' * 5 + 'b' * 6) == [0, 1, 4, 5, 7, 10]  # a new stage at 5
    assert whole(FORA(1), 'aab') == [0, 1, 2]


def test_calls_that_taylorseer_computes():
    assert whole(TaylorSeer(4), 'a' * 12) == [0, 1, 5, 9]
    assert whole(TaylorSeer(3, warm_up=1), 'a' * 8) == [0, 3, 6]
    assert whole(TaylorSeer(2, warm_up=3), 'a' * 8) == [0, 1, 2, 4, 6]
    assert whole(TaylorSeer(3), 'a' * 4 + 'b' * 6) == [0, 1, 4, 5, 8]


def recalled(order, values, warm_up, interval):
    """What a memory that saw ``values`` at the whole calls has for every call."""
    planner, memory = TaylorSeer(interval, order, warm_up).planner(0), TaylorMemory(order)
    found = []
    for value in values:
        if planner.reuses('a'):
            found.append(memory.recall(planner).item())
        else:
            memory.keep(torch.tensor([[value]]), planner)
            found.append(value)
    return found


def test_orders_of_the_forecast():
    squares = [float(i * i) for i in range(7)]
    assert recalled(0, squares, 1, 3) == [0, 0, 0, 9, 9, 9, 36]
    # between whole calls at 0 and 3 the slope is 3, at 3 and 6 it is 9
    assert recalled(1, squares, 1, 3)[4:6] == [9 + 3, 9 + 6]
    found = recalled(2, [*squares, 49.0], 1, 3)
    # second difference (9 - 3) / 3 = 2
    assert found[7] == 36 + 9 + 2 / 2
    line = [2.0 - 3 * i for i in range(9)]
    assert recalled(1, line, 2, 4) == line


@pytest.mark.parametrize('kind', NETWORKS)
@torch.no_grad()
def test_what_was_recorded_gives_the_same_output(kind):
    generator = build(kind)
    network, grid = generator.network, generator.prune.grids[1]
    x = torch.randn(2, *generator.data_shape)
    t = torch.tensor([30.0, 700.0])
    condition = generator.condition(**request(generator, 2))
    parts = LayerParts(network)
    output, kept = parts.compute(x, t, grid, condition)
    assert torch.equal(output, network(x, t, grid=grid, **condition))
    torch.testing.assert_close(parts.reuse(x, t, kept, grid, condition), output)
    # another time changes gates and last layer, and no branch is computed
    later = parts.reuse(x, t - 20, kept, grid, condition)
    assert not torch.equal(later, output)
    inner = [module for block in blocks_of(parts.replaying) for module in block.modules()]
    assert inner and not any(hasattr(module, 'qkv') or hasattr(module, 'fc1') for module in inner)


def test_order_zero_is_fora():
    generator = build(sides=(5,), sampler=dict(type='DDIMSampler', num_steps=7))
    generator.accelerate(method=dict(type='FORA', interval=3))  # 0, 3, 6
    expected = sampled(generator)
    taylor = dict(type='TaylorSeer', interval=3, warm_up=1)
    generator.accelerate(method=dict(taylor, order=0))
    torch.testing.assert_close(sampled(generator), expected)
    generator.accelerate(method=dict(taylor, order=1))
    assert not torch.allclose(sampled(generator), expected)
    generator.accelerate(method=dict(taylor, interval=1))
    expected = sampled(generator)
    generator.accelerate()
    torch.testing.assert_close(sampled(generator), expected)


@pytest.mark.parametrize(
    'method,message',
    [
        (dict(type='FORA', interval=0), 'interval of FORA .* got 0'),
        (dict(type='TaylorSeer', interval=2, order=-1), 'order of TaylorSeer .* got -1'),
        (dict(type='TaylorSeer', interval=2, warm_up=0), 'warm_up of TaylorSeer .* got 0'),
        (dict(type='FirstBlockCache', threshold=-1), 'threshold .* got -1'),
        (dict(type='ResidualCache', interval=2, first=2, last=1), 'leave none of 3 layers'),
    ],
)
def test_wrong_options_are_named(method, message):
    with pytest.raises(ValueError, match=message):
        build(acceleration=dict(method=method))


def test_what_excludes_a_method_is_named():
    with pytest.raises(ValueError, match='a method of its own'):
        build(acceleration=dict(cache_interval=2, method=dict(type='FORA', interval=2)))
    with pytest.raises(ValueError, match='no CUDA graph can hold'):
        build(acceleration=dict(cuda_graphs=True, method=dict(type='TeaCache', threshold=1)))
    with pytest.raises(ValueError, match='FORA keeps one state for both halves'):
        build(
            cfg_prune=dict(grids=[(0, 0)] * 4),
            acceleration=dict(method=dict(type='FORA', interval=2)),
        )

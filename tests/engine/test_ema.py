"""Averages of weights: their numbers, and sampling with them amid a training."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import init_default_scope
from torch import nn

from mmsparsedit.apis.launch import load_config
from mmsparsedit.engine import ForeachEMA, averaged_weights
from mmsparsedit.registry import MODELS

from runs import ROOT, SPARSE


def test_average_is_mmengines():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    ours, theirs = ForeachEMA(net, momentum=0.1), ExponentialMovingAverage(net, momentum=0.1)
    for _ in range(6):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ours.update_parameters(net)
        theirs.update_parameters(net)
    for a, b in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    resumed = ForeachEMA(net, momentum=0.1)
    resumed.load_state_dict(ours.state_dict())
    with torch.no_grad():
        net[0].weight.zero_()
    resumed.update_parameters(net)
    # a resumed average goes on; a fresh one would copy
    torch.testing.assert_close(
        resumed.module.get_parameter('0.weight'), 0.9 * ours.module.get_parameter('0.weight')
    )


def test_the_average_holds_weights_only():
    generator = MODELS.build(load_config(str(ROOT / SPARSE)).model)
    average = ForeachEMA(generator, momentum=0.5)
    assert {f'module.{key}' for key in generator.state_dict()} | {'steps'} == set(
        average.state_dict()
    )
    assert not any(type(m).__name__ == 'SparseDiT' for m in average.modules())


def test_the_average_follows_updates_not_iterations():
    net = nn.Linear(3, 3)
    average = ForeachEMA(net, momentum=0.25, interval=2)
    start = net.weight.detach().clone()
    for value in (1.0, 5.0, 1.0, 9.0):
        with torch.no_grad():
            net.weight.fill_(value)
        average.update_parameters(net)
        if value == 1.0 and average.steps == 1:
            assert torch.equal(average.module.weight, start)
    # the second call copies 5, the fourth adds a quarter of the way to 9
    assert torch.equal(average.module.weight, torch.full((3, 3), 6.0))


def test_sampling_with_the_average_leaves_training_as_it_was():
    net = nn.Linear(2, 2)
    init_default_scope('mmsparsedit')
    hook = EMAHook(ema_type='ForeachEMA', momentum=0.5)
    runner = SimpleNamespace(model=net, hooks=[hook])
    hook.before_run(runner)
    raw, averaged = net.weight.detach().clone(), torch.full((2, 2), 3.0)
    hook.ema_model.module.weight.data.copy_(averaged)
    expected = torch.random.get_rng_state()
    with pytest.raises(KeyError), averaged_weights(runner):
        assert torch.equal(net.weight, averaged)
        assert not net.training and not torch.is_grad_enabled()
        torch.rand(3)
        raise KeyError('sampling went wrong')
    assert torch.equal(net.weight, raw) and torch.equal(hook.ema_model.module.weight, averaged)
    assert net.training and torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), expected)

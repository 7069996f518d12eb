"""Captions are read once a trajectory: the same numbers, and what it saves is counted."""

import pytest
import torch

from mmsparsedit.models.cost import model_cost, trajectory_calls
from mmsparsedit.nn.captions import CaptionTokens, CrossAttention
from mmsparsedit.nn.flops import count_macs, count_read_once
from mmsparsedit.registry import MODELS

from accelerated import IMAGE, NETWORKS, build, sampled

T2V = dict(
    type='SparseLatteT2V', num_frames=2, caption_channels=16, model_max_length=5,
    **{**IMAGE, 'num_bottom': 2, 'num_top': 2}, sdtm=dict(type='FactorisedSDTM', num_sparse=2),
)  # fmt: skip
PACKED = {**NETWORKS['pixart'], 'pack_captions': True}


@pytest.mark.parametrize('network', [NETWORKS['pixart'], PACKED, T2V], ids=['', 'packed', 'video'])
def test_what_is_read_once_gives_the_same_bits(network):
    torch.manual_seed(0)
    net = MODELS.build(network).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, t = torch.randn(3, *net.data_shape), torch.tensor([0.0, 500.0, 999.0])
    condition = dict(
        y=torch.randn(3, 5, 16), mask=torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [0] * 5])
    )
    grid = (2, 3, 4) if len(net.token_grid) == 3 else (3, 4)
    with torch.no_grad():
        read = net.read_once(condition)
        assert isinstance(read['y'], CaptionTokens) and read['mask'] is None
        assert torch.equal(net(x, t, grid=grid, **read), net(x, t, grid=grid, **condition))


@pytest.mark.parametrize('options', [{}, dict(dtype='bfloat16'), dict(cache_interval=2)], ids=str)
def test_samples_are_those_of_captions_read_at_every_step(options, monkeypatch):
    generator = build('pixart', acceleration=options, cfg_interval=(200, 700))
    calls = []
    read = CrossAttention.keys_values
    monkeypatch.setattr(
        CrossAttention, 'keys_values', lambda self, text: (calls.append(1), read(self, text))[1]
    )
    found = sampled(generator)
    layers = generator.network.depth
    assert len(calls) == 2 * layers  # both halves of guidance in one, and the calls without
    monkeypatch.setattr(type(generator.network), 'read_once', lambda self, condition: condition)
    assert torch.equal(sampled(generator), found)
    assert len(calls) > 4 * layers


def test_what_it_saves_is_counted():
    generator = build('pixart', sides=(6, 4))
    network, (L, width, C) = generator.network, (5, 16, 32)
    layers = network.depth
    once = L * (width * C + C * C) + layers * L * C * 2 * C
    assert count_read_once(network) == once
    assert count_read_once(build(sides=(6, 4)).network) == 0
    calls = trajectory_calls(generator)
    counted = {grid: count_macs(network, grid).total for grid in {call.grid for call in calls}}
    every_step = 2 * sum(counted[call.grid] for call in calls)
    sampler = model_cost(generator)['sampler']
    assert sampler['gmacs_read_once'] == pytest.approx(2 * once / 1e9)
    expected = every_step - 2 * (len(calls) - 1) * once
    assert sampler['gmacs_per_sample'] == pytest.approx(expected / 1e9)
    # around a cached middle the captions of bottom and top have been read too
    generator.accelerate(cache_interval=2)
    bare = MODELS.build({**NETWORKS['pixart'], 'num_sdtm': 0})
    reused = 2 * (count_macs(bare).total - count_read_once(bare))
    whole = {grid: 2 * (macs - once) for grid, macs in counted.items()}
    expected = 2 * once + sum(
        reused if call.reused else whole[call.grid] for call in trajectory_calls(generator)
    )
    assert model_cost(generator)['sampler']['gmacs_per_sample'] == pytest.approx(expected / 1e9)

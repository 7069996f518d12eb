"""SparseSiT: SiT's conventions of time and velocity, its weights, and the public network."""

import os
import sys
from pathlib import Path

import pytest
import torch

from mmsparsedit.diffusion import Guidance
from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights
from mmsparsedit.registry import MODELS, TASK_UTILS

SHAPE = dict(input_size=8, hidden_size=48, num_heads=4, num_classes=10)
DENSE = dict(num_bottom=0, num_sdtm=0, num_top=8)
SPARSE = dict(num_bottom=1, num_sdtm=1, num_top=1)


def build(kind='SparseSiT', seed=0, **config):
    net = MODELS.build(dict(type=kind, **{**SHAPE, **DENSE, **config}))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    return net.eval()


def inputs():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 8, 8, generator=draw)
    return x, torch.tensor([0.0, 250.5, 1000.0]), torch.tensor([0, 4, 10])


@torch.no_grad()
def test_it_is_dits_network_at_sits_time_with_the_sign_of_a_rectified_flow():
    sit, dit = build(), build('SparseDiT', seed=1)
    load_pretrained(dit, export_weights(sit, 'sit'), 'dit')
    x, t, y = inputs()
    velocity = dit(x, 1 - t / 1000, y)[:, :4]  # data - noise, the other half unread
    torch.testing.assert_close(sit(x, t, y), -velocity, rtol=0, atol=0)


@torch.no_grad()
def test_euler_steps_are_those_of_sits_ode():
    """From noise at tau = 0 to data at tau = 1, along data - noise."""
    sit, dit = build(), build('SparseDiT', seed=1)
    load_pretrained(dit, export_weights(sit, 'sit'), 'dit')
    x, _, y = inputs()
    expected, steps = x, 5
    for i in range(steps):
        tau = torch.full((3,), i / steps)
        expected = expected + dit(expected, tau, y)[:, :4] / steps
    sampler = TASK_UTILS.build(dict(type='EulerSampler', num_steps=steps))
    flow = TASK_UTILS.build(dict(type='RectifiedFlow'))
    sample = sampler(lambda x, t: sit(x, torch.full((3,), t), y), x, flow, None)
    torch.testing.assert_close(sample, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_dense_checkpoint_makes_a_sparse_one():
    dense = build()
    state = export_weights(dense, 'sit')
    sparse = build(seed=1, **SPARSE)
    report = load_pretrained(sparse, {'ema': state, 'model': state, 'opt': {}})
    assert report.source == 'sit'
    assert report.dropped == ['blocks.0.attn.qkv.weight[q,k]', 'blocks.0.attn.qkv.bias[q,k]']
    assert all('.merge_' in key for key in report.initialised) and len(report.initialised) == 4
    again = build(seed=2)
    load_pretrained(again, state)
    x, t, y = inputs()
    assert torch.equal(again(x, t, y), dense(x, t, y))
    assert sparse(x, t, y, grid=(2, 2)).shape == x.shape


def test_a_network_trained_here_needs_no_spare_channels():
    net = build(spare_channels=False)
    assert net(*inputs()).shape == (3, 4, 8, 8)
    assert net.final_layer.linear.out_features == 2 * 2 * 4
    with pytest.raises(ValueError, match='spare_channels'):
        build(learn_sigma=True)


@pytest.fixture
def public(monkeypatch):
    """The public network with random weights, and ours with the same."""
    folder = os.environ.get('MMSPARSEDIT_SIT')
    if not folder or not Path(folder, 'models.py').is_file():
        pytest.skip('set MMSPARSEDIT_SIT to a copy of willisma/SiT (needs timm)')
    monkeypatch.syspath_prepend(folder)
    for name in ('models', 'transport'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    reference = pytest.importorskip('models').SiT(
        input_size=8, hidden_size=48, depth=8, num_heads=4, num_classes=10
    )
    draw = torch.Generator().manual_seed(3)
    for name, p in reference.named_parameters():
        if name != 'pos_embed':
            p.data.copy_(torch.randn(p.shape, generator=draw) * 0.1)
    net = build(seed=1)
    report = load_pretrained(net, reference.state_dict())
    assert not report.initialised and not report.dropped
    return reference.eval(), net


@torch.no_grad()
def test_parity_with_the_public_network(public):
    """Network, guidance on three channels, and the velocity of its training path."""
    reference, net = public
    x, t, y = inputs()
    tau = 1 - t / 1000
    torch.testing.assert_close(-net(x, t, y), reference(x, tau, y), rtol=1e-5, atol=1e-5)

    both, null = torch.cat([x, x]), torch.cat([y, torch.full_like(y, 10)])
    expected = reference.forward_with_cfg(both, torch.cat([tau, tau]), null, 1.5)[:3]
    cond, uncond = net(both, torch.cat([t, t]), null).chunk(2)
    guided = Guidance(1.5, 3, None).combine(cond, uncond, 4, 1)
    torch.testing.assert_close(-guided, expected, rtol=1e-5, atol=1e-5)

    from transport.path import ICPlan

    flow = TASK_UTILS.build(dict(type='RectifiedFlow'))
    data, noise = torch.randn_like(x), torch.randn_like(x)
    _, x_t, velocity = ICPlan().plan(tau, noise, data)
    torch.testing.assert_close(flow.add_noise(data, noise, t), x_t, rtol=1e-5, atol=1e-5)
    losses = flow.training_losses(-velocity, data, noise, x_t, t)
    assert losses['loss'].abs().max() < 1e-10


@torch.no_grad()
def test_parity_with_the_public_sampler(public):
    """Its ODE sampler's Euler and Heun steps; it counts points in time, one more than steps."""
    reference, net = public
    pytest.importorskip('torchdiffeq')
    from transport import Sampler, create_transport

    x, _, y = inputs()
    flow = TASK_UTILS.build(dict(type='RectifiedFlow'))
    for theirs, ours in (('euler', 'EulerSampler'), ('heun2', 'HeunSampler')):
        sample = Sampler(create_transport()).sample_ode(sampling_method=theirs, num_steps=6)
        expected = sample(x, reference.forward, y=y)[-1]
        sampler = TASK_UTILS.build(dict(type=ours, num_steps=5))
        found = sampler(lambda x, t: net(x, torch.full((3,), t), y), x, flow, None)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

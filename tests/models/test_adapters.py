"""Adapters: nothing changes at first, little is trained, and what was trained merges exactly."""

import pytest
import torch
from test_distillation import GRIDS, NETWORKS, build

from mmsparsedit.apis.launch import load_config
from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights, write_checkpoint
from mmsparsedit.nn.lora import LowRankLinear, add_adapters
from mmsparsedit.registry import MODELS

from runs import train

CONFIG = dict(type='SparseDiT', **NETWORKS['SparseDiT'])


def trained(kind):
    """A network with adapters that do something, and its inputs."""
    network, _, inputs = build(kind)
    before = network(**inputs, grid=GRIDS[kind])
    share = add_adapters(network, rank=2)
    torch.testing.assert_close(network(**inputs, grid=GRIDS[kind]), before)  # up is zero
    for p in network.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)
    return network, inputs, share


@pytest.mark.parametrize('kind', NETWORKS)
def test_adapters_of_a_checkpoint_merge_into_its_weights(kind):
    network, inputs, share = trained(kind)
    state = network.state_dict()
    plain = MODELS.build(dict(type=kind, **NETWORKS[kind]))
    report = load_pretrained(plain, state)
    wanted = network(**inputs, grid=GRIDS[kind])
    assert (plain(**inputs, grid=GRIDS[kind]) - wanted).abs().max() < 1e-4 * wanted.std()
    used = sorted(key for keys in report.sources.values() for key in keys)
    assert used == sorted(state) and not report.dropped  # every key is accounted for
    assert sum('lora_down' in key for key in state) > 0 and 'merged into their weights' in (
        report.summary()
    )
    weights = dict(network.named_parameters())
    moved = [key for key, p in weights.items() if p.requires_grad]
    assert all('lora_' in key or '.merge_' in key for key in moved)
    count = sum(weights[key].numel() for key in moved)
    assert share == count / sum(p.numel() for p in weights.values())


def test_a_plain_checkpoint_starts_adapters_that_change_nothing():
    network, inputs, _ = trained('SparseDiT')
    other, _, _ = build('SparseDiT')
    state = other.state_dict()
    report = load_pretrained(network, state)
    assert {key.rpartition('.')[2] for key in report.initialised} == {'lora_down', 'lora_up'}
    for module in network.modules():
        if isinstance(module, LowRankLinear):
            module.lora_up.data.zero_()
    torch.testing.assert_close(network(**inputs, grid=(4, 4)), other(**inputs, grid=(4, 4)))


def test_half_an_adapter_is_refused():
    network, _, _ = trained('SparseDiT')
    state = network.state_dict()
    lost = next(key for key in state if key.endswith('lora_up'))
    del state[lost]
    with pytest.raises(ValueError, match='is an adapter without'):
        load_pretrained(MODELS.build(CONFIG), state)
    with pytest.raises(ValueError, match='no linear map of the layers is called'):
        add_adapters(MODELS.build(CONFIG), targets=('qk',))
    with pytest.raises(ValueError, match='rank of an adapter must be at least 1'):
        add_adapters(MODELS.build(CONFIG), rank=0)


def test_exported_weights_are_plain(tmp_path):
    network, _, _ = trained('SparseDiT')
    write_checkpoint(network.state_dict(), tmp_path / 'adapters.pth')
    plain = MODELS.build(CONFIG)
    load_pretrained(plain, tmp_path / 'adapters.pth')
    assert set(export_weights(plain)) == set(MODELS.build(CONFIG).state_dict())


def test_a_run_with_adapters_resumes_and_leaves_the_rest_alone(tmp_path):
    config = 'configs/sparsedit/digits_lora.py'
    shape = load_config('sparsedit/dit_digits').model.network
    dense = MODELS.build({**shape, 'hidden_size': 16, 'num_heads': 2})
    for p in dense.parameters():
        p.data += 0.1 * torch.randn_like(p)  # the last layer of a new one is zero, and frozen
    torch.save(dense.state_dict(), tmp_path / 'dense.pth')
    options = (f'load_from={tmp_path / "dense.pth"}', 'default_hooks.checkpoint.interval=2')
    train(tmp_path / 'whole', 4, *options, config=config)
    train(tmp_path / 'resumed', 4, *options, config=config, resume=tmp_path / 'whole/iter_2.pth')
    first, last, resumed = (
        torch.load(tmp_path / name, weights_only=True)['state_dict']
        for name in ('whole/iter_2.pth', 'whole/iter_4.pth', 'resumed/iter_4.pth')
    )
    moved = {key for key, value in last.items() if not torch.equal(value, first[key])}
    assert moved and all('lora_' in key or '.merge_' in key for key in moved)
    assert all(torch.equal(value, resumed[key]) for key, value in last.items())

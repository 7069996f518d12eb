"""Loading, refusing and exporting checkpoints: every key is accounted for."""

import argparse
import io
import pickle

import pytest
import torch
from safetensors.torch import save_file

from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights, read_checkpoint, write_checkpoint
from mmsparsedit.registry import MODELS

SHAPE = dict(type='SparseDiT', input_size=8, hidden_size=48, num_heads=4, num_classes=10)
DENSE = dict(SHAPE, num_bottom=0, num_sdtm=0, num_top=8)
SPARSE = dict(
    SHAPE,
    num_bottom=1,
    num_sdtm=1,
    num_top=1,
    sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
)


def build(config, seed=0):
    net = MODELS.build(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return net.eval()


@pytest.fixture
def dit_state():
    """A dense model in DiT's own key names."""
    return export_weights(build(DENSE), 'dit')


def snapshot(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def unchanged(net, before):
    return all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_dense_into_sparse_accounts_for_every_key(dit_state):
    net = build(SPARSE, seed=1)
    report = load_pretrained(net, dit_state)
    C = 48
    state = net.state_dict()
    assert sorted(report.loaded + report.initialised) == sorted(state)
    assert report.source == 'dit'
    assert report.dropped == ['blocks.0.attn.qkv.weight[q,k]', 'blocks.0.attn.qkv.bias[q,k]']
    assert report.initialised == [
        f'middle.0.recovery.0.merge_{side}.{kind}'
        for side in ('sparse', 'dense')
        for kind in ('weight', 'bias')
    ]
    used = {source for sources in report.sources.values() for source in sources}
    assert used == set(dit_state)
    # layer by layer: bottom 0, generation 1, sparse 2-4, recovery 5, dense 6, top 7
    order = ['bottom.0', 'middle.0.generation.0', *(f'middle.0.sparse.{i}' for i in range(3))]
    order += ['middle.0.recovery.0', 'middle.0.dense.0', 'top.0']
    assert [name for name, _ in net.named_layers()] == order
    for i, name in enumerate(order):
        name += '.block' if 'recovery' in name else ''
        assert torch.equal(state[f'{name}.mlp.fc1.weight'], dit_state[f'blocks.{i}.mlp.fc1.weight'])
    assert torch.equal(
        state['bottom.0.attn.v.weight'], dit_state['blocks.0.attn.qkv.weight'][2 * C :]
    )
    assert torch.equal(
        state['middle.0.generation.0.attn.qkv.weight'], dit_state['blocks.1.attn.qkv.weight']
    )
    recovery = net.middle[0].recovery[0]
    assert torch.equal(recovery.merge_dense.weight, torch.eye(C))
    assert not recovery.merge_sparse.weight.any() and not recovery.merge_dense.bias.any()


def test_own_dense_and_own_sparse_checkpoints(tmp_path):
    dense, sparse = build(DENSE), build(SPARSE, seed=1)
    report = load_pretrained(sparse, {'meta': {}, 'state_dict': prefixed(dense)})
    assert report.source == 'mmsparsedit' and len(report.initialised) == 4
    torch.save(sparse.state_dict(), tmp_path / 'sparse.pth')
    again = build(SPARSE, seed=2)
    report = load_pretrained(again, tmp_path / 'sparse.pth')
    assert not report.dropped and not report.initialised
    assert unchanged(again, snapshot(sparse))
    # what a PoolingFormer lacks cannot be made up
    with pytest.raises(ValueError, match=r'top\.0\.attn\.qkv\.weight of the network is missing'):
        load_pretrained(build(DENSE), sparse.state_dict())


def test_checkpoints_of_version_0_1_are_read():
    """A recovery's block was the layer itself: its weights stood beside the merges."""
    sparse = build(SPARSE, seed=1)
    old = {key.replace('.block.', '.'): value for key, value in sparse.state_dict().items()}
    assert 'middle.0.recovery.0.attn.qkv.weight' in old
    again = build(SPARSE, seed=2)
    report = load_pretrained(again, {'meta': {}, 'state_dict': old})
    assert report.source == 'mmsparsedit' and not report.dropped and not report.initialised
    assert unchanged(again, snapshot(sparse))


PIXART = dict(
    type='SparsePixArt', input_size=8, hidden_size=48, num_heads=4, caption_channels=10,
    model_max_length=4, num_bottom=0, num_sdtm=0, num_top=8,
)  # fmt: skip
LATTE = dict(DENSE, type='SparseLatte', num_frames=4)


@pytest.mark.parametrize(
    'config,target,message',
    [
        (LATTE, 'diffusers', 'no layout of SparseLatte, which has latte, dit, mmsparsedit'),
        (LATTE, 'pixart', 'no layout of SparseLatte, which has latte'),
        (LATTE, 'dit', "'dit' is only read; SparseLatte is written as latte, mmsparsedit"),
        (PIXART, 'dit', 'no layout of SparsePixArt, which has pixart, diffusers, mmsparsedit'),
        (DENSE, 'latte', 'no layout of SparseDiT, which has dit, sparsedit, diffusers'),
        (DENSE, 'sparsedit', "'sparsedit' is only read; SparseDiT is written as dit, diffusers"),
    ],
)
def test_a_layout_of_another_network_is_refused(config, target, message):
    with pytest.raises(ValueError, match=message):
        export_weights(build(config), target)


def test_a_checkpoint_of_another_network_is_named(dit_state):
    pixart = export_weights(build(PIXART), 'pixart')
    with pytest.raises(ValueError, match=r'of SparsePixArt \(pixart\): use a config of that'):
        load_pretrained(build(DENSE), pixart)
    with pytest.raises(ValueError, match=r"not of the layout 'dit'.*blocks\.0\.attn\.qkv"):
        load_pretrained(build(DENSE), pixart, 'dit')
    with pytest.raises(ValueError, match="'pixart' is no layout of SparseDiT"):
        load_pretrained(build(DENSE), dit_state, 'pixart')
    # an image model may start a video model of its depth: the frame table is computed
    report = load_pretrained(build(LATTE), dit_state)
    assert report.source == 'dit' and report.initialised == ['temp_embed']


def prefixed(net):
    return {f'network.{key}': value for key, value in net.state_dict().items()}


def test_ema_of_a_training_file_is_taken(tmp_path, dit_state):
    other = {key: value + 1 for key, value in dit_state.items()}
    path = tmp_path / '0400000.pt'
    args = argparse.Namespace(model='DiT-XL/2', lr=1e-4)
    torch.save(dict(model=other, ema=dit_state, opt={}, args=args), path)
    net = build(DENSE, seed=3)
    load_pretrained(net, path, 'dit')
    assert torch.equal(net.top[0].mlp.fc1.weight, dit_state['blocks.0.mlp.fc1.weight'])


def test_other_resolution_recomputes_positions(dit_state):
    net = build(dict(DENSE, input_size=(16, 8)), seed=1)
    table = net.pos_embed.clone()
    report = load_pretrained(net, dit_state)
    assert report.initialised == ['pos_embed'] and report.dropped == ['pos_embed']
    assert torch.equal(net.pos_embed, table)
    assert report.notes == ['pos_embed: recomputed for 32 positions (checkpoint: 16 positions)']


def test_other_labels_only_when_asked(dit_state):
    net = build(dict(DENSE, num_classes=3), seed=1)
    before = snapshot(net)
    with pytest.raises(ValueError, match=r'y_embedder.*\(11, 48\).*needs \(4, 48\)'):
        load_pretrained(net, dit_state)
    assert unchanged(net, before)
    report = load_pretrained(net, dit_state, reinitialise=('y_embedder',))
    assert report.initialised == ['y_embedder.embedding_table.weight']
    key = 'y_embedder.embedding_table.weight'
    assert torch.equal(net.state_dict()[key], before[key])


@pytest.mark.parametrize(
    'damage,message',
    [
        (
            lambda s: s.pop('blocks.3.mlp.fc1.bias'),
            r'top\.3\.mlp\.fc1\.bias of the network is missing',
        ),
        (lambda s: s.update({'blocks.3.extra': torch.zeros(1)}), r'blocks\.3\.extra is unknown'),
        (lambda s: s.update({'sunset': torch.zeros(1)}), 'sunset is unknown'),
        (
            lambda s: s.update({'blocks.2.attn.proj.weight': torch.zeros(48, 47)}),
            r'blocks\.2\.attn\.proj\.weight has shape \(48, 47\), top\.2.*\(48, 48\)',
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith('blocks.7.')],
            '7 layers, the network has 8',
        ),
        (lambda s: s.update(epoch=3), "got \\['epoch'\\]"),
    ],
)
def test_a_wrong_key_is_named_and_nothing_is_half_loaded(dit_state, damage, message):
    damage(dit_state)
    net = build(DENSE, seed=5)
    before = snapshot(net)
    with pytest.raises(ValueError, match=message):
        load_pretrained(net, dit_state)
    assert unchanged(net, before)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match='none of the known layouts'):
        load_pretrained(build(DENSE), {'encoder.weight': torch.zeros(1)})


class Payload:
    """Executes when unpickled."""

    ran = False

    def __reduce__(self):
        return (_mark, ())


def _mark():
    Payload.ran = True
    return {}


def test_a_file_that_would_run_code_is_refused(tmp_path, dit_state):
    path = tmp_path / 'evil.pth'
    torch.save({**dit_state, 'x': Payload()}, path)
    net = build(DENSE, seed=5)
    before = snapshot(net)
    with pytest.raises(ValueError, match='would run code|cannot be read'):
        load_pretrained(net, path)
    bare = tmp_path / 'evil.pt'
    bare.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match='evil.pt'):
        load_pretrained(net, bare)
    assert not Payload.ran and unchanged(net, before)


@pytest.mark.parametrize('name', ['cut.pth', 'cut.safetensors'])
def test_a_truncated_file_is_refused(tmp_path, dit_state, name):
    path = tmp_path / name
    write_checkpoint(dit_state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match='damaged'):
        read_checkpoint(path)


def test_two_addresses_with_one_file_name_are_two_files(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, target):
        fetched.append(url)
        torch.save({'a': torch.tensor(float(len(fetched)))}, target)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    addresses = ['https://one.example/model.pth', 'https://two.example/model.pth'] * 2
    assert [read_checkpoint(address)['a'].item() for address in addresses] == [1, 2, 1, 2]
    assert fetched == addresses[:2]


def test_absent_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.pt'):
        read_checkpoint(tmp_path / 'nowhere.pt')
    with pytest.raises(FileNotFoundError, match='diffusion_pytorch_model'):
        read_checkpoint(tmp_path)


def test_round_trip_through_dit_is_the_same_bytes(dit_state):
    net = build(DENSE, seed=9)
    load_pretrained(net, dit_state)
    files = []
    for state in (dit_state, export_weights(net, 'dit')):
        assert list(state) == list(dit_state)
        files.append(io.BytesIO())
        torch.save({key: value.clone() for key, value in state.items()}, files[-1])
    assert files[0].getvalue() == files[1].getvalue()


def test_round_trip_through_diffusers(tmp_path, dit_state):
    net = build(DENSE)
    state = export_weights(net, 'diffusers')
    (tmp_path / 'transformer').mkdir()
    save_file(state, tmp_path / 'transformer' / 'diffusion_pytorch_model.safetensors')
    again = build(DENSE, seed=4)
    report = load_pretrained(again, tmp_path)
    assert report.source == 'diffusers' and report.initialised == ['pos_embed']
    assert unchanged(again, snapshot(net))
    # seven of eight blocks repeat the embedders of timestep (4 tensors) and class (1)
    assert len(report.dropped) == 7 * 5
    used = {source for sources in report.sources.values() for source in sources}
    assert used | set(report.dropped) == set(state)


def test_exported_keys_are_those_of_diffusers():
    diffusers = pytest.importorskip('diffusers')
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=8,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    state = export_weights(build(DENSE), 'diffusers')
    expected = {key: value.shape for key, value in model.state_dict().items()}
    expected.pop('pos_embed.pos_embed', None)
    assert {key: value.shape for key, value in state.items()} == expected


def test_what_comes_from_diffusers_says_how_it_computes():
    net = build(dict(DENSE, diffusers_numerics=True))
    assert net.t_embedder.frequency_shift == 1 and net.top[0].norm2.eps == 1e-5
    assert net.top[0].norm1.eps == net.final_layer.norm_final.eps == 1e-6
    report = load_pretrained(build(DENSE), export_weights(net, 'diffusers'))
    assert 'SparseDiT(diffusers_numerics=True)' in report.summary()


def test_diffusers_text_to_video_is_told_by_name():
    state = {'temporal_transformer_blocks.0.attn1.to_q.weight': torch.zeros(2, 2)}
    state['transformer_blocks.0.attn1.to_q.weight'] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r'They are of SparseLatteT2V \(diffusers\)'):
        load_pretrained(build(DENSE), state)


def test_diffusers_blocks_trained_apart_are_refused():
    state = export_weights(build(DENSE), 'diffusers')
    key = 'transformer_blocks.5.norm1.emb.timestep_embedder.linear_1.weight'
    state[key] = state[key] + 1
    with pytest.raises(ValueError, match='transformer_blocks.5.*differs'):
        load_pretrained(build(DENSE), state)


def test_a_sparse_network_is_not_exported():
    with pytest.raises(ValueError, match='only a dense network'):
        export_weights(build(SPARSE), 'dit')


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'x.pth'
    write_checkpoint({'a': torch.ones(3)}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_checkpoint({'a': lambda: None}, path)
    assert torch.equal(read_checkpoint(path)['a'], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ['x.pth']

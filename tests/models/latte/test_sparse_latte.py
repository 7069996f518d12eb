"""Identities of the sparse video network: merges, full grids, axes, shapes, weights, costs."""

import math

import pytest
import torch

from mmsparsedit.models import SparseLatte, load_pretrained
from mmsparsedit.models.checkpoints import export_weights
from mmsparsedit.models.latte.factorised import (
    ClipCondition,
    FactorisedSDTM,
    over_space,
    over_time,
    pool_time,
)
from mmsparsedit.models.paper_count import AS_AUTHORS, ONES, extra_macs
from mmsparsedit.nn import pool_tokens
from mmsparsedit.nn.flops import count_macs
from mmsparsedit.registry import TASK_UTILS

WIDTH = 24


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module with random weights everywhere except in the merges."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if '.merge_' not in f'.{name}':
                parameter.normal_(std=0.2, generator=generator)
    return module.eval()


def small(**changes) -> SparseLatte:
    arguments = dict(
        input_size=8,
        num_frames=4,
        hidden_size=WIDTH,
        num_heads=3,
        num_classes=5,
        num_bottom=2,
        num_sdtm=1,
        num_top=2,
    )
    return randomised(SparseLatte(**{**arguments, **changes}))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('order', ['temporal_first', 'spatial_first'])
@torch.no_grad()
def test_untrained_merges_return_their_dense_partner(order, monkeypatch):
    sdtm = randomised(FactorisedSDTM(WIDTH, 3, recover_order=order))
    merged = {}
    for name, block in zip(('space', 'time'), sdtm.recovery, strict=True):

        def merge(x, sparse, grid, dense_grid, name=name, block=block, original=block.merge):
            merged[name] = (x, original(x, sparse, grid, dense_grid))
            return merged[name][1]

        monkeypatch.setattr(block, 'merge', merge)
    x, c = noise(2, 4, 12, WIDTH), ClipCondition(noise(2, WIDTH))
    sdtm(x, c, grid=(2, 2, 2), dense_grid=(4, 3, 4))
    for partner, result in merged.values():
        assert torch.equal(result, partner)
    pruned = over_space(sdtm.generation[0], pool_tokens(x, (3, 4), (2, 2)), c, x)
    if order == 'temporal_first':
        assert torch.equal(merged['time'][0].transpose(1, 2), pruned)
        assert torch.equal(merged['space'][0], x)
    else:
        assert torch.equal(merged['space'][0], pool_time(x, 2))
        assert torch.equal(merged['time'][0].transpose(1, 2), x)


@pytest.mark.parametrize('order', ['temporal_first', 'spatial_first'])
@torch.no_grad()
def test_full_grid_is_latte_with_recovery_reading_sparse_tokens(order):
    """At the dense grid generation and sparse layers are standard blocks, one after the other."""
    net = small(reinject_pos_embed=False, recover_order=order)
    sdtm = net.middle[0]
    x, c = noise(2, 4, 16, WIDTH), ClipCondition(noise(2, WIDTH))
    first = over_space(sdtm.generation[0], x, c)
    h = over_time(sdtm.generation[1], first, c)
    h = over_space(sdtm.sparse[0], h, c)
    h = over_time(sdtm.sparse[1], h, c)
    if order == 'temporal_first':
        y = over_time(sdtm.recovery[1].block, first, c, h)
        expected = over_space(sdtm.recovery[0].block, x, c, y)
    else:
        y = over_space(sdtm.recovery[0].block, x, c, h)
        expected = over_time(sdtm.recovery[1].block, x, c, y)
    actual = sdtm(x, c, grid=net.token_grid, dense_grid=net.token_grid)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_layers_in_space_and_time_read_only_their_axis():
    net = small(num_bottom=0, num_sdtm=0, num_top=2)
    x, c = noise(1, 4, 16, WIDTH), ClipCondition(noise(1, WIDTH))
    other = x.clone()
    other[:, 2, 5] += 1
    for function, unchanged in (
        (over_space, (slice(None), [0, 1, 3], slice(None))),  # other frames
        (over_time, (slice(None), slice(None), [0, 1, 2, 3, 4, 6, 7])),  # other positions
    ):
        a, b = function(net.top[0], x, c), function(net.top[0], other, c)
        assert torch.equal(a[unchanged], b[unchanged])
        assert not torch.allclose(a, b)


@pytest.mark.parametrize('frames,size,grid', [(5, (6, 10), (3, 2, 4)), (7, (10, 6), (2, 3, 1))])
@pytest.mark.parametrize('order', ['temporal_first', 'spatial_first'])
@torch.no_grad()
def test_shapes_layer_by_layer_for_odd_grids(frames, size, grid, order):
    net = small(num_frames=frames, input_size=size, num_sdtm=1, recover_order=order)
    F, S, (f, *space) = frames, math.prod(net.token_grid[1:]), grid
    s, seen = math.prod(space), {}
    for name, block in net.named_layers():

        def note(block, args, out, name=name) -> None:
            seen[name] = tuple(out.shape[1:3])

        block.register_forward_hook(note)
    out = net(noise(2, F, 4, *size), torch.tensor([3.0, 500.0]), torch.tensor([1, 5]), grid=grid)
    assert out.shape == (2, F, 8, *size)
    assert seen == {
        'bottom.0': (F, S),
        'bottom.1': (S, F),  # layers in time see (position, frame)
        'middle.0.generation.0': (F, s),
        'middle.0.generation.1': (s, f),
        'middle.0.sparse.0': (f, s),
        'middle.0.sparse.1': (s, f),
        'middle.0.recovery.0': (F, S) if order == 'temporal_first' else (f, S),
        'middle.0.recovery.1': (s, F) if order == 'temporal_first' else (S, F),
        'top.0': (F, S),
        'top.1': (S, F),
    }


@torch.no_grad()
def test_joint_images_pass_the_sparse_layers():
    """A clip does not see its images, and an image sees neither clip nor other images."""
    net = small()
    clip, images = noise(2, 4, 4, 8, 8), noise(2, 3, 4, 8, 8)
    t, y, y_image = torch.tensor([10.0, 700.0]), torch.tensor([0, 5]), torch.tensor([[1, 2, 3]] * 2)
    grid = (2, 3, 3)
    joint = net(torch.cat([clip, images], 1), t, y, grid, use_image_num=3, y_image=y_image)
    torch.testing.assert_close(joint[:, :4], net(clip, t, y, grid), rtol=1e-5, atol=1e-5)
    order = [2, 0, 1]
    shuffled = torch.cat([torch.zeros_like(clip), images[:, order]], 1)
    other = net(shuffled, t, y, grid, use_image_num=3, y_image=y_image[:, order])
    torch.testing.assert_close(other[:, 4:], joint[:, 4:][:, order], rtol=1e-5, atol=1e-5)


def test_dense_weights_go_to_the_layer_of_their_index_and_axis():
    dense = small(num_bottom=0, num_sdtm=0, num_top=10)
    state = export_weights(dense, 'latte')
    assert list(state)[:3] == ['pos_embed', 'temp_embed', 'x_embedder.proj.weight']
    names = {}
    for order in ('temporal_first', 'spatial_first'):
        net = small(recover_order=order)
        report = load_pretrained(net, state, source='latte')
        names[order] = [name for name, _ in net.named_layers()]
        for i, (name, layer) in enumerate(net.named_layers()):
            block = getattr(layer, 'block', layer)
            if i < 2:
                assert report.sources[f'{name}.attn.v.weight'] == [f'blocks.{i}.attn.qkv.weight']
                assert torch.equal(
                    block.attn.v.weight, state[f'blocks.{i}.attn.qkv.weight'][-WIDTH:]
                )
            else:
                assert torch.equal(block.attn.qkv.weight, state[f'blocks.{i}.attn.qkv.weight'])
        assert sorted(report.initialised) == sorted(k for k in net.state_dict() if '.merge_' in k)
        # the temporal recovery is pretrained layer b + 5, the spatial one b + 4
        assert names[order][6:8] == ['middle.0.recovery.0', 'middle.0.recovery.1']
        reloaded = small(recover_order=order)
        assert not load_pretrained(reloaded, net.state_dict()).initialised
    assert names['temporal_first'] == names['spatial_first']


def test_other_numbers_of_frames_take_the_weights():
    net = small()
    report = load_pretrained(small(num_frames=7), net.state_dict())
    assert report.initialised == ['temp_embed']
    assert report.notes == ['temp_embed: recomputed for 7 positions (checkpoint: 4 positions)']


@pytest.fixture(scope='module')
def full_size():
    """Latte-XL/2 and its sparse forms on the meta device."""
    with torch.device('meta'):
        return dict(
            dense=SparseLatte(num_classes=None, num_bottom=0, num_sdtm=0, num_top=28),
            temporal_first=SparseLatte(num_classes=None),
            spatial_first=SparseLatte(num_classes=None, recover_order='spatial_first'),
        )


def as_authors(extra) -> int:
    """What the authors' code does more, the product by a matrix of ones with it."""
    return sum(extra[name] for name in (*AS_AUTHORS, ONES))


def test_dense_cost(full_size):
    net = full_size['dense']
    entries = [*net.parameters(), net.pos_embed, net.temp_embed]
    assert sum(p.numel() for p in entries) == 673_994_912
    ours = count_macs(net).gmacs
    extra = extra_macs(net)
    reference = ours + as_authors(extra) / 1e9
    assert extra['norms'] == 57 * 4096 * 1152 * 4  # fvcore: four operations an element
    assert ours == pytest.approx(1862.83, abs=0.01)
    assert reference == pytest.approx(1892.96, abs=0.01)
    assert reference + extra['norms'] / 1e9 == pytest.approx(1894.04, abs=0.01)  # the paper's 1894


@pytest.mark.slow(5)
@pytest.mark.parametrize(
    'order,ours,paper',
    [
        ('temporal_first', (890.4, 816.8, 751.1, 642.8), (945.2, 870.6, 803.9, 694.2)),
        ('spatial_first', (922.0, 871.4, 826.2, 751.8), (981.5, 930.5, 884.9, 809.9)),
    ],
)
def test_sparse_cost(full_size, order, ours, paper):
    net = full_size[order]
    prune = TASK_UTILS.build(
        dict(
            type='TimestepPruneScheduler',
            r_min=0.80,
            r_max=0.93,
            token_grid=(16, 16, 16),
            num_frames=8,
        )
    )
    grids = [stage.grid for stage in prune.stages]
    assert grids == [(8, 10, 10), (8, 9, 9), (8, 8, 8), (8, 6, 6)]
    counted = [count_macs(net, grid).gmacs for grid in grids]
    as_paper = [
        c + as_authors(extra_macs(net, grid)) / 1e9 for c, grid in zip(counted, grids, strict=True)
    ]
    assert counted == pytest.approx(ours, abs=0.06)
    assert as_paper == pytest.approx(paper, abs=0.06)
    if order == 'temporal_first':
        assert sum(as_paper) / 4 == pytest.approx(828.5, abs=0.05)  # the paper's 828
        assert sum(counted) / 4 == pytest.approx(775.3, abs=0.05)


@pytest.mark.parametrize(
    'changes,text',
    [
        (dict(num_bottom=1), 'must be even'),
        (dict(num_bottom=0, num_sdtm=1), 'num_bottom 0 with SDTMs'),
        (dict(recover_order='both'), 'recover_order must be one of'),
        (dict(sdtm=dict(type='FactorisedSDTM', num_sparse=3)), 'num_sparse must be even'),
    ],
)
def test_refused_structures(changes, text):
    with pytest.raises(ValueError, match=text):
        small(**changes)


def test_refused_inputs():
    net, t = small(), torch.zeros(1)
    y = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match=r'expected \(B, 4, 4, 8, 8\)'):
        net(torch.zeros(1, 5, 4, 8, 8), t, y)
    with pytest.raises(ValueError, match='labels y are missing'):
        net(torch.zeros(1, 4, 4, 8, 8), t)
    with pytest.raises(ValueError, match='y_image are missing'):
        net(torch.zeros(1, 5, 4, 8, 8), t, y, use_image_num=1)
    with pytest.raises(ValueError, match='exceeds the dense grid'):
        net(torch.zeros(1, 4, 4, 8, 8), t, y, grid=(5, 4, 4))

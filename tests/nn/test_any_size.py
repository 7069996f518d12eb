"""A network takes data of any size: positions and grids follow, weights stay."""

import copy

import pytest
import torch

from mmsparsedit.models import SparseDiT, SparseLatte, SparsePixArt
from mmsparsedit.nn import sincos_pos_embed_2d
from mmsparsedit.prune import TimestepPruneScheduler

TINY = dict(hidden_size=24, num_heads=2, num_bottom=2, num_sdtm=1, num_top=2)
COUNTS = dict(sdtm=dict(block_counts=(1, 1, 1, 1)))


def randomised(net):
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return net


def networks():
    text = dict(caption_channels=8, model_max_length=4, class_dropout_prob=0.1)
    yield SparseDiT(**TINY, **COUNTS, input_size=8, num_classes=5), {}
    yield SparsePixArt(**TINY, **COUNTS, **text, input_size=8, pe_interpolation=2.0), {}
    yield SparseLatte(**TINY, input_size=8, num_frames=2, num_classes=5), dict(frames=True)


@pytest.mark.parametrize('index', range(3), ids=['dit', 'pixart', 'latte'])
@torch.no_grad()
def test_other_size_is_the_network_built_for_it(index):
    net, kind = list(networks())[index]
    net = randomised(net).double()
    own = {key: value.clone() for key, value in net.state_dict().items()}
    inputs = net.at_size((12, 8)).example_inputs(2)
    inputs = {key: v.double() if v.is_floating_point() else v for key, v in inputs.items()}
    inputs['x'] = torch.randn(inputs['x'].shape, dtype=torch.double)
    grid = (1, 3, 2) if kind else (3, 2)
    out = net(**inputs, grid=grid)
    assert out.shape == (*inputs['x'].shape[:-3], 8, 12, 8)

    # the same weights in a copy whose positions and grid were set by hand
    other = copy.deepcopy(net)
    other.pos_embed = net.positions((6, 4)).double()
    other.input_size, other.data_shape = (12, 8), (*net.data_shape[:-2], 12, 8)
    other.token_grid = (*net.token_grid[:-2], 6, 4)
    assert torch.equal(other(**inputs, grid=grid), out)
    # nothing of the network itself changed
    assert net.token_grid[-2:] == (4, 4) and own.keys() == net.state_dict().keys()
    assert all(torch.equal(own[key], value) for key, value in net.state_dict().items())
    # a view is kept, and sees what becomes of the weights
    view = net.at_size((12, 8))
    assert net.at_size((12, 8)) is view and net.at_size((8, 8)) is net
    net.float()
    assert net.at_size((12, 8)).pos_embed.dtype == torch.float32
    assert view.x_embedder is net.x_embedder


def test_positions_span_what_they_spanned():
    net = SparseDiT(**TINY, **COUNTS, input_size=8, num_classes=5)
    table = net.at_size((16, 8)).pos_embed.view(8, 4, 24)
    assert torch.equal(table[::2], net.pos_embed.view(4, 4, 24))  # rows walked at half the step
    pixart = SparsePixArt(**TINY, **COUNTS, input_size=8, caption_channels=8, pe_interpolation=2.0)
    wanted = sincos_pos_embed_2d(24, (3, 6), (3 / 4 * 2, 6 / 4 * 2))
    assert torch.equal(pixart.at_size((6, 12)).pos_embed, wanted)


def test_schedule_of_another_grid_has_the_same_rates():
    prune = TimestepPruneScheduler(r_min=0.61, r_max=0.86, token_grid=(16, 16), rounding='ceil')
    assert prune.for_grid((16, 16)) is prune
    wide = prune.for_grid((8, 32))
    assert wide is prune.for_grid((8, 32))
    assert [stage.grid for stage in prune.stages] == [(10, 10), (9, 9), (8, 8), (6, 6)]
    assert [stage.grid for stage in wide.stages] == [(5, 20), (5, 18), (4, 16), (3, 12)]
    assert [s.t_start for s in wide.stages] == [s.t_start for s in prune.stages]
    given = TimestepPruneScheduler(grids=[(8, 8), (4, 4)], token_grid=(16, 16), boundaries=[300])
    scaled = given.for_grid((8, 32))
    assert [s.grid for s in scaled.stages] == [(4, 16), (2, 8)] and scaled.stages[1].t_start == 300
    video = TimestepPruneScheduler(0.5, 0.8, token_grid=(16, 8, 8), num_frames=8, num_stages=2)
    assert [s.grid for s in video.for_grid((16, 4, 16)).stages] == [(8, 4, 16), (8, 3, 10)]

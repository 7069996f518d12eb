"""MAC counts against the closed formula, torch's own counter and the paper's figures."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmsparsedit.models import SparseDiT
from mmsparsedit.models.paper_count import ONES, extra_macs, log_macs
from mmsparsedit.nn import flops
from mmsparsedit.nn.flops import PARTS, count_macs, register_cost

from closed_formulas import closed_formula

XL = dict(hidden_size=1152, num_heads=16)
B = dict(
    hidden_size=768,
    num_heads=12,
    num_bottom=1,
    num_sdtm=2,
    num_top=1,
    sdtm=dict(type='SDTM', block_counts=(1, 2, 1, 1)),
)


def on_meta(**config):
    with torch.device('meta'):
        return SparseDiT(**config).to('meta')


def dense(depth, size=32, **config):
    return on_meta(input_size=size, num_bottom=0, num_sdtm=0, num_top=depth, **config)


@pytest.mark.parametrize(
    'net,grid,ours,as_paper,ones',
    [
        (dense(12, hidden_size=768, num_heads=12), None, 23.01, 23.01, 0),
        (dense(28, **XL), None, 118.62, 118.62, 0),
        (dense(28, 64, **XL), None, 524.6, 524.6, 0),
        (on_meta(**XL), (6, 6), None, 60.81, 0.15),
        (on_meta(**XL), (8, 8), 65.78, 68.15, 0.15),
        (on_meta(**XL), (10, 10), None, 77.66, 0.15),
        (on_meta(**XL), (12, 12), None, 89.37, 0.15),
        (on_meta(input_size=64, **XL), (8, 8), 223.01, 233.53, 2.42),
        (on_meta(input_size=64, **XL), (16, 16), 278.27, 287.78, 2.42),
        (on_meta(**B), (8, 8), 13.85, 14.37, 0.05),
    ],
)
def test_figures_of_the_paper(net, grid, ours, as_paper, ones):
    count, extra = count_macs(net, grid), extra_macs(net, grid)
    assert extra[ONES] / 1e9 == pytest.approx(ones, abs=5e-3)
    if ours is not None:
        assert count.gmacs == pytest.approx(ours, rel=1e-3)
    counted = count.total + extra['values before mean'] + extra['merge after upsampling']
    assert counted / 1e9 == pytest.approx(as_paper, rel=1e-3)


@pytest.mark.parametrize('grid', [(3, 5), (6, 8), (2, 2)])
def test_equals_the_closed_formula_to_the_last_multiply(grid):
    net = on_meta(
        input_size=(12, 16), hidden_size=96, num_heads=4, num_bottom=2, num_sdtm=3, num_top=1,
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
    )  # fmt: skip
    expected = closed_formula(48, grid[0] * grid[1], 96, 2, 3, (1, 3, 1, 1), 1, 4 * 4, 4 * 8)
    assert count_macs(net, grid).total == expected
    assert count_macs(net, grid, batch_size=5).total == 5 * expected


@pytest.mark.parametrize('grid', [None, (4, 4), (3, 7)])
def test_agrees_with_torchs_counter(grid):
    net = on_meta(input_size=16, hidden_size=64, num_heads=4)
    inputs = net.example_inputs(2, 'meta')
    with FlopCounterMode(display=False) as counter:
        net(**inputs, grid=grid)
    assert count_macs(net, grid, 2).total == counter.get_total_flops() / 2


def test_parts_add_up():
    net = on_meta(input_size=16, hidden_size=64, num_heads=4, num_bottom=2, num_sdtm=1, num_top=1)
    count = count_macs(net, (4, 4))
    N, M, C = 64, 16, 64
    assert sum(count.parts.values()) == count.total and tuple(count.parts) == PARTS
    # attention: generation M N, three sparse M M, recovery N M, dense N N, top N N
    assert count.parts['attention'] == 2 * C * (2 * M * N + 3 * M * M + 2 * N * N)
    assert count.parts['merge'] == (N + M) * C**2
    assert count.parts['modulation'] == (9 * 6 + 2) * C**2


class Odd(nn.Module):
    """A network with an operation that the counter does not know."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        return torch.linalg.solve(self.weight, x)

    def example_inputs(self, batch_size=1, device='cpu'):
        return dict(x=torch.zeros(4, batch_size, device=device))


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match=r'aten::linalg_solve.*register_cost'):
        count_macs(Odd())


def test_a_user_says_what_an_operation_costs(monkeypatch):
    monkeypatch.setattr(flops, '_REGISTERED', {})
    register_cost('aten::linalg_solve_ex', lambda inputs, outputs: 64)
    register_cost('aten::_linalg_solve_ex', lambda inputs, outputs: 64)
    register_cost('aten::linalg_solve', lambda inputs, outputs: 64)
    assert count_macs(Odd()).total == 64
    register_cost('aten::linalg_solve', None)
    assert count_macs(Odd()).total == 0


def test_counting_leaves_the_network_alone():
    net = SparseDiT(input_size=8, hidden_size=32, num_heads=2, num_bottom=1, num_sdtm=1, num_top=1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count_macs(net, (2, 2))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.device.type == 'cpu' for p in net.parameters())


@pytest.mark.slow(3)
def test_the_authors_log_to_the_unit():
    """fvcore on their network, 67.632 G in their log; at 512 it rounds its last operation."""
    net = on_meta(num_bottom=1, num_top=3, **XL)
    assert log_macs(net, (8, 8)) == 67_632_320_512
    assert sum(value.numel() for value in net.state_dict().values()) == 683_099_168
    net = on_meta(input_size=64, **XL)
    assert log_macs(net, (8, 8)) == 220_289_400_833 - 1
    assert sum(value.numel() for value in net.state_dict().values()) == 681_327_392

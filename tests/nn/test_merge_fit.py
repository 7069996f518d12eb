import pytest
import torch

from mmsparsedit.nn.merge_fit import MergeFit
from mmsparsedit.nn.sdtm import TokenRecovery

BLOCK = dict(type='TransformerBlock', hidden_size=8, num_heads=2)


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
def test_known_merge_is_recovered_over_grids(upsample):
    torch.manual_seed(0)
    truth = TokenRecovery(8, BLOCK, upsample)
    for layer in (truth.merge_sparse, truth.merge_dense):
        layer.reset_parameters()
    fitted = TokenRecovery(8, BLOCK, upsample)
    fit = MergeFit(fitted, ridge=1e-9)
    errors, square = 0, 0
    for grid in ((2, 2), (3, 3)):
        x, sparse = torch.randn(16, 36, 8), torch.randn(16, grid[0] * grid[1], 8)
        target = truth.merge(x, sparse, grid, (6, 6)).detach()
        fit.update(x, sparse, target, grid, (6, 6))
        errors, square = errors + (x - target).square().sum(), square + target.square().sum()
    before, after = fit.apply()
    assert before == pytest.approx((errors / square).item()) and abs(after) < 1e-9
    for name in ('merge_sparse', 'merge_dense'):
        found, known = getattr(fitted, name).weight, getattr(truth, name).weight
        torch.testing.assert_close(found, known, atol=1e-5, rtol=0)
    bias = truth.merge_sparse.bias + truth.merge_dense.bias
    torch.testing.assert_close(fitted.merge_dense.bias, bias, atol=1e-5, rtol=0)
    wanted = truth.merge(x, sparse, grid, (6, 6))
    start = (x - wanted).square().mean()  # W1 = 0, W2 = I
    assert (fitted.merge(x, sparse, grid, (6, 6)) - wanted).square().mean() < 1e-9 * start


def test_large_penalty_keeps_the_papers_start():
    recovery = TokenRecovery(8, BLOCK)
    fit = MergeFit(recovery, ridge=1e9)
    x = torch.randn(4, 16, 8)
    fit.update(x, torch.randn(4, 4, 8), x @ torch.randn(8, 8), (2, 2), (4, 4))
    fit.apply()
    torch.testing.assert_close(recovery.merge_dense.weight, torch.eye(8), atol=1e-6, rtol=0)


def test_fit_without_data_is_refused():
    with pytest.raises(ValueError, match='no batch'):
        MergeFit(TokenRecovery(8, BLOCK)).apply()

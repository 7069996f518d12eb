"""Identities of the sparse modules."""

import pytest
import torch
import torch.nn.functional as F

from mmsparsedit.nn import (
    SDTM,
    PoolingFormerBlock,
    TokenRecovery,
    TransformerBlock,
    pool_tokens,
    upsample_tokens,
)
from mmsparsedit.registry import MODELS

C, HEADS = 32, 4
BLOCK = dict(type='TransformerBlock', hidden_size=C, num_heads=HEADS)


def randomise(module, skip=()):
    with torch.no_grad():
        for name, p in module.named_parameters():
            if not name.startswith(skip):
                p.normal_(0, 0.2)
    return module.double()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tokens(n, batch=2):
    return torch.randn(batch, n, C, dtype=torch.float64)


def test_pooling_former_is_attention_with_a_constant_map():
    pooling = randomise(PoolingFormerBlock(C, HEADS))
    standard = TransformerBlock(C, HEADS).double()
    state = {k: v for k, v in pooling.state_dict().items() if not k.startswith('attn.v')}
    for kind in ('weight', 'bias'):
        v = pooling.state_dict()[f'attn.v.{kind}']
        # queries and keys of zero: every score is equal, the map is 1 / N everywhere
        state[f'attn.qkv.{kind}'] = torch.cat([torch.zeros_like(v), torch.zeros_like(v), v])
    standard.load_state_dict(state)
    x, c = tokens(30), torch.randn(2, C, dtype=torch.float64)
    torch.testing.assert_close(pooling(x, c), standard(x, c), rtol=0, atol=1e-13)


def test_generation_at_the_dense_grid_is_the_standard_block():
    block = randomise(TransformerBlock(C, HEADS))
    x, c = tokens(24), torch.randn(2, C, dtype=torch.float64)
    pooled = pool_tokens(x, (4, 6), (4, 6))
    assert torch.equal(pooled, x)
    torch.testing.assert_close(block(pooled, c, context=x), block(x, c), rtol=0, atol=1e-14)


def test_context_weights_are_the_qkv_rows():
    block = randomise(TransformerBlock(C, HEADS))
    x, context = tokens(5), tokens(9)
    q = F.linear(x, block.attn.qkv.weight[:C], block.attn.qkv.bias[:C])
    k, v = (
        F.linear(context, block.attn.qkv.weight[rows], block.attn.qkv.bias[rows])
        for rows in (slice(C, 2 * C), slice(2 * C, 3 * C))
    )

    def heads(z):
        return z.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    weights = (heads(q) @ heads(k).transpose(-1, -2) / (C // HEADS) ** 0.5).softmax(-1)
    out = (weights @ heads(v)).transpose(1, 2).flatten(2)
    expected = F.linear(out, block.attn.proj.weight, block.attn.proj.bias)
    torch.testing.assert_close(block.attn(x, context), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
def test_an_untrained_merge_returns_the_dense_tokens_exactly(upsample):
    block = TokenRecovery(C, BLOCK, upsample).double()
    x = tokens(35)
    assert torch.equal(block.merge(x, tokens(6), (2, 3), (5, 7)), x)


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
@pytest.mark.parametrize('grid,dense', [((2, 3), (5, 7)), ((5, 5), (12, 12)), ((3, 3), (9, 6))])
def test_w1_before_upsampling_equals_w1_after(upsample, grid, dense):
    block = randomise(TokenRecovery(C, BLOCK, upsample))
    x, sparse = tokens(dense[0] * dense[1]), tokens(grid[0] * grid[1])
    maps = sparse.transpose(1, 2).unflatten(-1, grid)
    options = {} if upsample == 'nearest' else dict(align_corners=False)
    up = F.interpolate(maps, dense, mode=upsample, **options).flatten(2).transpose(1, 2)
    expected = block.merge_sparse(up) + block.merge_dense(x)
    torch.testing.assert_close(block.merge(x, sparse, grid, dense), expected, rtol=0, atol=1e-13)


def test_position_is_added_to_the_merged_tokens():
    module = SDTM(
        C, HEADS, block_counts=(1, 0, 1, 0)
    ).double()  # gates are random, merges untrained
    for block in (*module.generation, *module.recovery):
        randomise(block, skip=('merge',))
    x, c = tokens(16), torch.randn(2, C, dtype=torch.float64)
    table = torch.randn(1, 16, C, dtype=torch.float64)
    sparse = module.generation[0](pool_tokens(x, (4, 4), (2, 2)), c, context=x)
    expected = module.recovery[0].block(x + table, c, context=sparse)
    output = module(x, c, grid=(2, 2), dense_grid=(4, 4), pos_embed=table)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
@pytest.mark.parametrize('grid,dense', [((3, 5), (7, 11)), ((2, 3, 3), (4, 7, 6))])
def test_constant_tokens_survive_resampling(mode, grid, dense):
    n = torch.Size(dense).numel()
    x = torch.randn(2, 1, C, dtype=torch.float64).expand(2, n, C)
    pooled = pool_tokens(x, dense, grid)
    assert pooled.shape == (2, torch.Size(grid).numel(), C)
    torch.testing.assert_close(upsample_tokens(pooled, grid, dense, mode), x)


def test_extra_dimensions_share_the_condition():
    """(B, S, N, C) with one condition per sample equals (B S, N, C) with it repeated."""
    c = torch.randn(2, C, dtype=torch.float64)
    x = torch.randn(2, 3, 10, C, dtype=torch.float64)
    for cls in (TransformerBlock, PoolingFormerBlock):
        block = randomise(cls(C, HEADS))
        expected = block(x.flatten(0, 1), c.repeat_interleave(3, 0)).unflatten(0, (2, 3))
        torch.testing.assert_close(block(x, c), expected, rtol=0, atol=1e-13)


def test_resampling_takes_leading_dimensions():
    x = torch.randn(2, 3, 12, C, dtype=torch.float64)
    pooled = pool_tokens(x, (3, 4), (2, 2))
    assert torch.equal(pooled.flatten(0, 1), pool_tokens(x.flatten(0, 1), (3, 4), (2, 2)))
    fine = upsample_tokens(pooled, (2, 2), (3, 4))
    assert torch.equal(fine[1, 2], upsample_tokens(pooled[1, 2:], (2, 2), (3, 4))[0])


def test_an_sdtm_is_composed_of_any_block():
    class Doubled(TransformerBlock):
        def forward(self, x, c, context=None):
            return 2 * super().forward(x, c, context)

    MODELS.register_module(module=Doubled, force=True)
    module = SDTM(C, HEADS, block=dict(type='Doubled', mlp_ratio=2.0))
    for _, layer in module.layers():
        block = getattr(layer, 'block', layer)
        assert isinstance(block, Doubled) and block.mlp.fc1.out_features == 2 * C

"""The variance of attention: closed values, and which layers have one."""

import pytest
import torch

from mmsparsedit.apis.attention_maps import analyze_attention, normalised_variance, plot_attention
from mmsparsedit.nn import Attention
from mmsparsedit.registry import MODELS


def test_even_attention_has_none_and_a_single_token_all():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    x, context = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    attention.qkv.weight.data[:8] = 0  # queries
    attention.qkv.bias.data[:8] = 0
    assert normalised_variance(attention, x, context) == pytest.approx(0, abs=1e-6)
    attention.qkv.weight.data[:16] = 0  # queries and keys: the first number of each, far apart
    attention.qkv.weight.data[[0, 4, 8, 12], 0] = 100.0
    context[..., 0] = torch.arange(5.0)
    x[..., 0] = 1.0
    assert normalised_variance(attention, x, context) == pytest.approx(1)
    assert normalised_variance(attention, x, context[:, :1]) == 0


def test_it_is_the_variance_of_the_weights_whatever_the_batch_is_cut_into(monkeypatch):
    torch.manual_seed(0)
    attention, x = Attention(8, 2), torch.randn(2, 3, 6, 8)
    q, k, _ = attention.qkv(x).unflatten(-1, (3, 2, 4)).unbind(-3)
    weights = torch.einsum('bfnhd,bfkhd->bfhnk', q, k).div(2).softmax(-1)
    expected = weights.var(-1, unbiased=False) / ((6 - 1) / 6**2)  # that of one token
    found = normalised_variance(attention, x)
    assert found == pytest.approx(expected.mean().item(), rel=1e-5)
    monkeypatch.setattr('mmsparsedit.apis.attention_maps.MOST_WEIGHTS', 1)
    assert normalised_variance(attention, x) == pytest.approx(found, rel=1e-6)


def test_layers_by_timesteps_of_a_sparse_model(tmp_path):
    generator = MODELS.build(
        dict(
            type='DiffusionGenerator',
            network=dict(
                type='SparseDiT', input_size=8, patch_size=1, in_channels=1, hidden_size=16,
                num_heads=2, num_classes=10, num_bottom=1, num_sdtm=1, num_top=1,
                sdtm=dict(type='SDTM', block_counts=(1, 1, 1, 0)),
            ),
            diffusion=dict(type='GaussianDiffusion'),
            sampler=dict(type='DDIMSampler', num_steps=5),
            prune=dict(type='TimestepPruneScheduler', r_min=0.61, r_max=0.86, token_grid=(8, 8)),
        )
    )  # fmt: skip
    data = [dict(inputs=torch.randn(2, 1, 8, 8), label=torch.tensor([1, 2]))] * 3
    found = analyze_attention(generator, data, [100, 500, 900])
    assert found['layers'][0] == 'bottom.0' and found['layers'][-1] == 'top.0'
    assert found['variance'][0] == [0.0] * 3  # a PoolingFormer
    assert all(0 < value < 1 for row in found['variance'][1:] for value in row)
    plot_attention(found, 'tiny', tmp_path / 'attention.png')
    assert (tmp_path / 'attention.png').read_bytes().startswith(b'\x89PNG')
    assert not any(m._forward_pre_hooks for m in generator.modules())

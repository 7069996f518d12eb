"""Token merging against its public code, and what merging means."""

import pytest
import torch
from torch import nn

from mmsparsedit.models.methods import TokenMerging
from mmsparsedit.models.methods.token_merging import match

from accelerated import NETWORKS, build, sampled


@pytest.mark.parametrize(
    'grid,stride,random', [((4, 6), 2, True), ((5, 7), 2, True), ((7, 6), 3, False)]
)
@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.75])
def test_the_same_tokens_merge_as_in_tomesd(grid, stride, random, ratio):
    merge = pytest.importorskip('tomesd.merge')
    height, width = grid
    x = torch.randn(2, height * width, 8, generator=torch.Generator().manual_seed(0))
    r = int(height * width * ratio)
    theirs, undo = merge.bipartite_soft_matching_random2d(
        x, width, height, stride, stride, r, not random, torch.Generator().manual_seed(1)
    )
    windows = (height // stride, width // stride)
    draw = torch.Generator().manual_seed(1)
    choice = torch.randint(stride**2, (*windows, 1), generator=draw)[..., 0] * random
    ours = match(x, grid, stride, choice, r)
    found, expected = ours.merge(x), theirs(x)
    # sources and destinations may stand in another order
    order, other = (y.sum(-1).argsort(dim=1) for y in (found, expected))
    for y, expected_y, o, p in zip(found, expected, order, other, strict=True):
        torch.testing.assert_close(y[o], expected_y[p])
    for function in (torch.nn.Identity(), lambda y: y.cumsum(-1) - y.mean(dim=1, keepdim=True)):
        torch.testing.assert_close(ours.unmerge(function(found)), undo(function(expected)))


def test_equal_tokens_merge_without_loss():
    tokens = torch.randn(1, 4, 8).repeat_interleave(4, dim=1)  # four windows of equal tokens
    x = tokens.unflatten(1, (2, 2, 2, 2)).transpose(2, 3).flatten(1, 4)
    matching = match(x, (4, 4), 2, torch.tensor([[0, 3], [1, 2]]), 12)
    merged = matching.merge(x)
    assert merged.shape == (1, 4, 8)
    torch.testing.assert_close(matching.unmerge(merged), x)


def dense(merge=None, **options):
    network = {**NETWORKS['dit'], 'num_bottom': 1, 'num_sdtm': 0, 'num_top': 2}
    return build(network=network, prune=None, acceleration=dict(merge=merge), **options)


def test_a_ratio_of_zero_changes_nothing_and_more_does():
    expected = sampled(dense())
    unmerged = sampled(dense(dict(type='TokenMerging', ratio=0.0)))
    torch.testing.assert_close(unmerged, expected, rtol=1e-4, atol=1e-3)
    merging = dict(type='TokenMerging', ratio=0.5)
    merged = sampled(dense(merging))
    assert not torch.allclose(merged, expected, rtol=1e-2)
    assert torch.equal(sampled(dense(merging)), merged)  # the draws are the same
    alone = dense(merging).sample([1], label=torch.tensor([1]))
    torch.testing.assert_close(alone[0], merged[1], rtol=1e-3, atol=1e-4)


def test_where_tokens_merge():
    """Layers of the dense grid that read their own tokens: here SDTM's dense layer and the top."""
    network = {**NETWORKS['dit'], 'sdtm': dict(type='SDTM', block_counts=(1, 1, 1, 1))}
    generator = build(network=network)
    for mlp, expected in (
        (False, {}),
        (True, {'bottom.0.mlp', 'middle.0.dense.0.mlp', 'top.0.mlp'}),
    ):
        merged = TokenMerging(ratio=0.5, mlp=mlp).merged(generator.network)
        seen = {}
        for name, module in merged.named_modules():
            if name.endswith(('attn.inner', 'mlp.inner')):
                module.register_forward_pre_hook(
                    lambda m, args, name=name, seen=seen: seen.update({name[:-6]: args[0].shape[1]})
                )
        inputs = generator.network.example_inputs(2)
        inputs['x'] = torch.randn_like(inputs['x'])
        with torch.no_grad():
            merged(**inputs, grid=(5, 5))
        assert {name for name, tokens in seen.items() if tokens == 32} == {
            'middle.0.dense.0.attn', 'top.0.attn', *expected
        }  # fmt: skip
        assert set(seen.values()) == {25, 32}  # the sparse layers keep theirs


def test_weights_are_those_of_the_network():
    network = dense().network
    merged = TokenMerging().merged(network)
    theirs = {id(p) for p in network.parameters()}
    assert {id(p) for p in merged.parameters()} == theirs
    assert not any(
        isinstance(m, nn.Linear) and id(m.weight) not in theirs for m in merged.modules()
    )


@pytest.mark.parametrize(
    'kind,options,message',
    [
        ('dit', dict(ratio=0.8), r'in \[0, 0.75\] for stride 2, got 0.8'),
        ('dit', dict(stride=9), r'stride 9 of TokenMerging exceeds the token grid \(8, 8\)'),
        ('latte', {}, 'matches tokens of an image'),
    ],
)
def test_what_cannot_merge_is_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build(kind, acceleration=dict(merge=dict(type='TokenMerging', **options)))

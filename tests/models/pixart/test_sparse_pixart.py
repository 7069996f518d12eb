"""SparsePixArt: captions and masks, sparse layers, weights, cost."""

import pytest
import torch
import torch.nn.functional as F

from mmsparsedit.apis.cost import cost_report
from mmsparsedit.models import SparsePixArt, load_pretrained
from mmsparsedit.models.checkpoints import Canonical, export_weights
from mmsparsedit.nn.captions import CaptionEmbedder, CrossAttention, PixArtBlock

TINY = dict(input_size=8, hidden_size=24, num_heads=2, caption_channels=10, model_max_length=6)
DENSE = dict(num_bottom=0, num_sdtm=0, num_top=8)
SPARSE = dict(num_bottom=1, num_sdtm=1, num_top=1)


def randomised(net: SparsePixArt) -> SparsePixArt:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if '.merge_' not in name:
                parameter.normal_(std=0.2)
    return net.eval()


def build(**changed) -> SparsePixArt:
    return randomised(SparsePixArt(**{**TINY, **SPARSE, **changed}))


def inputs(batch: int = 3, length: int = 6) -> dict:
    generator = torch.Generator().manual_seed(1)
    return dict(
        x=torch.randn(batch, 4, 8, 8, generator=generator),
        t=torch.arange(batch) * 300.0,
        y=torch.randn(batch, length, 10, generator=generator),
    )


@pytest.mark.parametrize('pack', [False, True])
def test_masked_tokens_have_no_influence(pack):
    net, kwargs = build(pack_captions=pack), inputs()
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    kwargs['y'].requires_grad_()
    out = net(**kwargs, mask=mask, grid=(2, 2))
    (out**2).sum().backward()
    gradient = kwargs['y'].grad.abs().sum(-1)
    assert (gradient[mask == 0] == 0).all()
    assert (gradient[mask == 1] > 0).all()
    changed = torch.where(mask[..., None] == 0, 1e3, kwargs['y'].detach())
    again = net(kwargs['x'], kwargs['t'], changed, mask, grid=(2, 2))
    torch.testing.assert_close(again, out, rtol=0, atol=0)


def test_packed_masked_and_block_diagonal_agree():
    """The reference packs all valid tokens into one row under a block-diagonal mask."""
    kwargs = inputs()
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]])
    masked = build()(**kwargs, mask=mask, grid=(3, 2))
    packed = build(pack_captions=True)(**kwargs, mask=mask, grid=(3, 2))
    torch.testing.assert_close(packed, masked, rtol=0, atol=1e-5)

    torch.manual_seed(0)
    attention, embedder = CrossAttention(24, 2), CaptionEmbedder(10, 24, 6)
    tokens = torch.randn(3, 5, 24)
    ours = attention(tokens, embedder(kwargs['y'], mask))
    sample = torch.arange(3)[:, None].expand(3, 6)[mask.bool()]  # of each packed token
    allowed = torch.arange(3).repeat_interleave(5)[:, None] == sample[None]
    k, v = attention.kv_linear(embedder.y_proj(kwargs['y'][mask.bool()])).chunk(2, -1)

    def split(x):
        return x.reshape(1, -1, 2, 12).transpose(1, 2)

    q = attention.q_linear(tokens)
    row = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=allowed)
    reference = attention.proj(row.transpose(1, 2).reshape(3, 5, 24))
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize('pack', [False, True])
def test_captions_of_0_1_120_and_300_tokens(pack):
    net = build(model_max_length=120, pack_captions=pack)
    full = inputs(length=120)
    for valid in (0, 1, 120):
        mask = (torch.arange(120) < valid).long().expand(3, -1)
        out = net(**full, mask=mask, grid=(2, 2))
        assert out.isfinite().all()
        if valid:  # as if the padding were not there
            short = {**full, 'y': full['y'][:, :valid]}
            torch.testing.assert_close(out, net(**short, grid=(2, 2)), rtol=0, atol=1e-5)
        else:  # as if cross-attention gave zeros
            with torch.no_grad():
                for _, layer in net.named_layers():
                    block = getattr(layer, 'block', layer)
                    block.cross_attn.kv_linear.weight.zero_()
                    block.cross_attn.kv_linear.bias.zero_()
            torch.testing.assert_close(out, net(**full, grid=(2, 2)), rtol=0, atol=1e-5)
            net = build(model_max_length=120, pack_captions=pack)
    with pytest.raises(ValueError, match=r'\(3, 300, 10\).*L of 1 to 120'):
        net(**inputs(length=300))


def test_mixed_batch_equals_single_samples():
    """An absent caption beside others changes nothing for them, nor they for it."""
    net, kwargs = build(pack_captions=True), inputs()
    mask = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    whole = net(**kwargs, mask=mask, grid=(2, 3))
    for i in range(3):
        one = {key: value[i : i + 1] for key, value in kwargs.items()}
        alone = net(**one, mask=mask[i : i + 1], grid=(2, 3))
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-5)


def test_bad_captions_are_named():
    net = build()
    with pytest.raises(ValueError, match=r'\(3, 6, 12\).*expected \(B, L, 10\)'):
        net(**{**inputs(), 'y': torch.zeros(3, 6, 12)})
    with pytest.raises(ValueError, match=r'mask of shape \(3, 5\).*expected \(3, 6\)'):
        net(**inputs(), mask=torch.ones(3, 5))
    with pytest.raises(ValueError, match='pe_base_size'):
        SparsePixArt(**{**TINY, **SPARSE, 'input_size': (8, 12)})
    with pytest.raises(ValueError, match='no SDTM'):
        randomised(SparsePixArt(**TINY, **DENSE))(**inputs(), grid=(2, 2))


def test_sparse_layers_keep_the_dense_weights():
    dense = randomised(SparsePixArt(**TINY, **DENSE))
    sparse = SparsePixArt(**TINY, **SPARSE)
    state = export_weights(dense, 'pixart')
    report = load_pretrained(sparse, state)
    assert report.source == 'pixart'
    assert [key for key in report.initialised if '.merge_' not in key] == []
    assert report.dropped == [f'blocks.0.attn.qkv.{kind}[q,k]' for kind in ('weight', 'bias')]
    for (_, ours), (_, theirs) in zip(sparse.named_layers(), dense.named_layers(), strict=True):
        ours = getattr(ours, 'block', ours)
        torch.testing.assert_close(ours.cross_attn.state_dict(), theirs.cross_attn.state_dict())
        torch.testing.assert_close(ours.scale_shift_table, theirs.scale_shift_table)
    torch.testing.assert_close(sparse.bottom[0].attn.v.weight, dense.top[0].attn.qkv.weight[48:])
    assert sparse(**inputs(), grid=(2, 2)).shape == (3, 8, 8, 8)


def test_grid_reaches_self_attention_only():
    """Layers of an SDTM hold M, M, M, M, N, N tokens, and each reads the caption with those."""
    net = build(num_sdtm=1)
    seen = []
    for name, block in net.named_layers():
        getattr(block, 'block', block).cross_attn.register_forward_hook(
            lambda _, args, __, name=name: seen.append((name, args[0].shape[1]))
        )
    net(**inputs(), grid=(2, 3))
    assert [count for _, count in seen] == [16, 6, 6, 6, 6, 16, 16, 16]


def test_null_caption_of_one_token_reads_that_token():
    """Repeated over all places, under any mask, it is attention to the one token alone."""
    net, kwargs = build(), inputs()
    feature = torch.randn(6, 10)
    net.set_null_caption(feature, torch.tensor([1, 0, 0, 0, 0, 0]))
    null = net.y_embedder.y_embedding.expand(3, -1, -1)
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    under_mask = net(kwargs['x'], kwargs['t'], null, mask)
    alone = net(kwargs['x'], kwargs['t'], feature[:1].expand(3, 1, -1))
    torch.testing.assert_close(under_mask, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize('micro', [False, True])
def test_diffusers_weights_give_diffusers_numbers(micro):
    diffusers = pytest.importorskip('diffusers')
    torch.manual_seed(0)
    theirs = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=8,
        sample_size=8,
        caption_channels=10,
        cross_attention_dim=24,
        use_additional_conditions=micro,
        interpolation_scale=2.0,
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    net = SparsePixArt(**TINY, **DENSE, pe_interpolation=2.0, micro_condition=micro).eval()
    state = theirs.state_dict()
    report = load_pretrained(net, state)
    assert report.source == 'diffusers'
    assert set(report.initialised) <= {'y_embedder.y_embedding', 'pos_embed'}
    assert 'y_embedder.y_embedding' in report.initialised
    assert any('null_caption.npz' in note for note in report.notes)
    assert {key for keys in report.sources.values() for key in keys} == set(state)

    kwargs = inputs()
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    sizes, conditions = {}, dict(resolution=None, aspect_ratio=None)
    if micro:
        sizes = dict(img_hw=torch.tensor([[64.0, 96.0]] * 3), aspect_ratio=torch.ones(3, 1) * 0.67)
        conditions = dict(resolution=sizes['img_hw'], aspect_ratio=sizes['aspect_ratio'])
    with torch.no_grad():
        wanted = theirs(
            kwargs['x'],
            encoder_hidden_states=kwargs['y'],
            timestep=kwargs['t'],
            added_cond_kwargs=conditions,
            encoder_attention_mask=mask,
        ).sample
        out = net(**kwargs, mask=mask, **sizes)
    error = (out - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-5, error
    back = export_weights(net, 'diffusers')
    assert set(back) == set(state)
    for key, value in back.items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_damaged_diffusers_checkpoint_is_refused():
    net = SparsePixArt(**TINY, **DENSE)
    state = export_weights(net, 'diffusers')
    del state['transformer_blocks.2.attn2.to_v.weight']
    with pytest.raises(ValueError, match='transformer_blocks.2.attn2.to_v.weight'):
        load_pretrained(net, state)
    assert Canonical().absent == {}


def test_other_positions_in_a_checkpoint_are_noted():
    net = SparsePixArt(**TINY, **DENSE)
    state = {**net.state_dict(), 'pos_embed': net.pos_embed * 0.5}
    report = load_pretrained(net, state)
    assert 'pos_embed' in report.loaded
    assert any('pe_interpolation' in note for note in report.notes)


def test_all_layers_are_pixarts():
    """The SDTM is the one of all base models, made of PixArt's block."""
    net = SparsePixArt(**TINY, **SPARSE)
    blocks = [getattr(layer, 'block', layer) for _, layer in net.named_layers()]
    assert len(blocks) == 8 and all(isinstance(block, PixArtBlock) for block in blocks)


@pytest.mark.slow(4)
@pytest.mark.parametrize(
    'name,as_paper,ours',
    [('pixart_sam_256', (148.3, 149.1), 149.05), ('sam_256', (91.5, 91.8), 89.20)],
)
def test_cost_of_table_3(name, as_paper, ours):
    """The paper: 148.73 and 91.62 GMACs, the latter the mean of four stages."""
    from pathlib import Path

    from mmengine.config import Config

    config = Config.fromfile(Path(__file__).parents[3] / f'configs/sparsepixart/{name}.py')
    report = cost_report(config.model)
    for key in ('as_authors', 'as_authors_with_ones'):
        assert as_paper[0] <= report['mean_t'][key] <= as_paper[1]
    assert report['mean_t']['gmacs'] == pytest.approx(ours, abs=0.01)
    grids = [stage['grid'] for stage in report['stages']]
    assert grids in ([None], [[10, 10], [9, 9], [8, 8], [6, 6]])


def test_a_sparse_network_reads_its_own_checkpoint():
    """A recovery's block carries a table of its own beside its modules."""
    net = SparsePixArt(
        hidden_size=24, num_heads=2, input_size=8, num_bottom=1, num_sdtm=1, num_top=1,
        caption_channels=8, model_max_length=4,
    )  # fmt: skip
    state = {key: value + 1 for key, value in net.state_dict().items()}
    report = load_pretrained(net, state)
    assert sorted(report.loaded) == sorted(state) and not report.dropped
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())

"""From dense models of diffusers to sparse ones, and to this package's checkpoints."""

import pytest
import torch
from diffusers import DiTTransformer2DModel
from tiny_pipelines import (
    PRUNE,
    SHAPE,
    VIDEO_PRUNE,
    dense_dit,
    dense_latte,
    dense_pixart,
    dit_pipeline,
    latte_pipeline,
    prompts,
)

from mmsparsedit.diffusers import SparseDiTTransformer2DModel, sparsify
from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights

DENSE = dict(num_bottom=0, num_sdtm=0, num_top=6)


def noise(*shape):
    return torch.randn(*shape, generator=torch.manual_seed(0))


def inputs(name, size=(16, 16)):
    x = torch.randn(2, 4, *size, generator=torch.manual_seed(0))
    given = dict(hidden_states=x, timestep=torch.tensor([700, 700]))
    if name == 'dit':
        return given | dict(class_labels=torch.tensor([3, 1000]))
    caption = prompts(2)
    return given | dict(
        encoder_hidden_states=caption['prompt_embeds'],
        encoder_attention_mask=caption['prompt_attention_mask'],
    )


@torch.no_grad()
def test_without_sparse_layers_pixart_is_the_dense_model():
    dense = dense_pixart()
    same = sparsify(dense, None, **DENSE)
    for size in ((16, 16), (12, 24)):  # positions of other sizes are those of diffusers
        given = inputs('pixart', size)
        wanted = dense(**given).sample
        assert (same(**given).sample - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@torch.no_grad()
def test_without_sparse_layers_dit_is_dit():
    """diffusers' DiT spaces its time frequencies over 127: at t = 0 that makes no difference."""
    dense = dense_dit()
    same = sparsify(dense, None, **DENSE)
    for size in ((16, 16), (24, 24)):
        given = inputs('dit', size) | dict(timestep=torch.tensor([0, 0]))
        wanted = dense(**given).sample
        assert (same(**given).sample - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@torch.no_grad()
def test_without_sparse_layers_latte_is_the_dense_model():
    dense = dense_latte()
    same = sparsify(dense, None, num_bottom=0, num_sdtm=0, num_top=8)
    for size in ((8, 8), (12, 6)):
        given = inputs('pixart') | dict(hidden_states=noise(2, 4, 4, *size))
        del given['encoder_attention_mask']
        wanted = dense(**given).sample
        assert (same(**given).sample - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    # the way back, under diffusers' names
    back = export_weights(same.network, 'diffusers')
    state = {k: v for k, v in dense.state_dict().items() if not k.startswith('pos_embed.pos')}
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


@torch.no_grad()
def test_a_sparse_latte_keeps_each_axis():
    dense = dense_latte(layers=5)
    pipe = latte_pipeline(dense)
    sparse = sparsify(pipe, VIDEO_PRUNE, num_bottom=2, num_top=2).transformer
    module = sparse.network.middle[0]
    for layer, own in ((1, module.generation), (2, module.sparse), (3, module.recovery)):
        for kind, block in zip(('transformer', 'temporal_transformer'), own, strict=True):
            block = getattr(block, 'block', block)
            theirs = getattr(dense, f'{kind}_blocks')[layer]
            assert torch.equal(block.attn.proj.weight, theirs.attn1.to_out[0].weight)
            assert (block.cross_attn is None) == (theirs.attn2 is None)
    given = inputs('pixart') | dict(hidden_states=noise(2, 4, 4, 8, 8))
    assert sparse(**given).sample.shape == (2, 8, 4, 8, 8)
    assert sparse.grid_at(999) == (2, 1, 1) and sparse.grid_at(0) == (2, 3, 3)
    with pytest.raises(ValueError, match='cannot leave them out'):
        sparse(**given, enable_temporal_attentions=False)
    with pytest.raises(ValueError, match='num_sparse more'):
        sparsify(dense, VIDEO_PRUNE, block_counts=(1, 3, 1, 1))


@torch.no_grad()
def test_dit_computes_as_diffusers_where_it_is_asked_to(tmp_path):
    dense = dense_dit(norm_eps=1e-5)  # its default
    numerics = dict(network_kwargs=dict(diffusers_numerics=True))
    sparsify(dense, None, **DENSE, **numerics).save_pretrained(tmp_path)
    same = SparseDiTTransformer2DModel.from_pretrained(tmp_path)
    given = inputs('dit') | dict(timestep=torch.tensor([300, 300]))
    wanted = dense(**given).sample
    assert (same(**given).sample - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    plain = sparsify(dense, None, **DENSE)
    assert (plain(**given).sample - wanted).abs().max() > 1e-3 * wanted.abs().max()


@pytest.mark.parametrize('name', ['dit', 'pixart'])
@torch.no_grad()
def test_merges_start_as_the_dense_tokens(name):
    dense = dense_dit() if name == 'dit' else dense_pixart()
    sparse = sparsify(dense, PRUNE, num_bottom=1, num_top=1, block_counts=(1, 1, 1, 1))
    recovery = sparse.network.middle[0].recovery[0]
    assert recovery.merge_sparse.weight.abs().max() == 0
    assert torch.equal(recovery.merge_dense.weight, torch.eye(24))
    block = dense.transformer_blocks[1].attn1  # layer 1 generates
    rows = torch.cat([block.to_q.weight, block.to_k.weight, block.to_v.weight])
    assert torch.equal(sparse.network.middle[0].generation[0].attn.qkv.weight, rows)
    assert torch.equal(
        sparse.network.bottom[0].attn.v.weight, dense.transformer_blocks[0].attn1.to_v.weight
    )
    assert sparse.grid_at(999) == (3, 3) and sparse.grid_at(0) == (6, 6)
    assert sparse(**inputs(name)).sample.isfinite().all()


def test_a_pipeline_keeps_its_other_parts():
    pipe = dit_pipeline(dense_dit())
    sparse = sparsify(pipe, PRUNE, num_bottom=1, num_top=1, block_counts=(1, 1, 1, 1))
    assert type(sparse.transformer).__name__ == 'SparseDiTTransformer2DModel'
    assert isinstance(pipe.transformer, DiTTransformer2DModel)  # as it was
    assert sparse.vae is pipe.vae and pipe.config.transformer[0] == 'diffusers'
    assert sparse.config.transformer == ('mmsparsedit.diffusers', 'SparseDiTTransformer2DModel')


def test_a_saved_folder_is_a_checkpoint_of_this_package(tmp_path):
    sparse = sparsify(dense_dit(), PRUNE, num_bottom=1, num_top=1, block_counts=(1, 1, 1, 1))
    sparse.save_pretrained(tmp_path)
    from mmsparsedit.models import SparseDiT

    net = SparseDiT(**sparse.network_options())
    report = load_pretrained(net, tmp_path)
    assert report.source == 'mmsparsedit' and not report.initialised and not report.dropped
    for key, value in net.state_dict().items():
        assert torch.equal(value, sparse.network.state_dict()[key]), key


def test_refusals():
    with pytest.raises(ValueError, match='has no sparse counterpart'):
        sparsify(torch.nn.Linear(2, 2), PRUNE)
    with pytest.raises(ValueError, match='leave 2 for SDTMs of 6'):
        sparsify(dense_dit(), PRUNE)
    other = DiTTransformer2DModel(**SHAPE, out_channels=8, num_layers=6, activation_fn='geglu')
    with pytest.raises(ValueError, match='activation_fn'):
        sparsify(other, PRUNE)

"""What diffusers' own model tests ask of a model."""

import json

import pytest
import torch
from tiny_pipelines import prompts, sparse_dit, sparse_pixart

from mmsparsedit.diffusers import SparseDiTTransformer2DModel, SparsePixArtTransformer2DModel


def case(name):
    x = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(0))
    given = dict(hidden_states=x, timestep=torch.tensor([700]))
    if name == 'dit':
        return (
            SparseDiTTransformer2DModel,
            sparse_dit(),
            given | dict(class_labels=torch.tensor([3])),
        )
    text = prompts()
    return (
        SparsePixArtTransformer2DModel,
        sparse_pixart(),
        given
        | dict(
            encoder_hidden_states=text['prompt_embeds'],
            encoder_attention_mask=text['prompt_attention_mask'],
        ),
    )


@pytest.mark.parametrize('name', ['dit', 'pixart'])
@torch.no_grad()
def test_saved_and_loaded(name, tmp_path):
    cls, model, inputs = case(name)
    wanted = model(**inputs).sample
    model.save_pretrained(tmp_path / 'whole')
    model.save_pretrained(tmp_path / 'shards', max_shard_size='20KB')
    model.save_pretrained(tmp_path / 'variant', variant='fp32')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 3
    for folder, options in (('whole', {}), ('shards', {}), ('variant', dict(variant='fp32'))):
        loaded, about = cls.from_pretrained(tmp_path / folder, output_loading_info=True, **options)
        assert not any(about[key] for key in ('missing_keys', 'unexpected_keys'))
        assert torch.equal(loaded(**inputs).sample, wanted)
        assert loaded.config.prune == model.config.prune and loaded.grid_at(999) == (3, 3)
    written = json.loads((tmp_path / 'whole/config.json').read_text())
    assert written['_class_name'] == cls.__name__ and written['prune'] == {
        'r_min': 0.4,
        'r_max': 0.9,
    }
    half = cls.from_pretrained(tmp_path / 'whole', torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    rounded = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    assert (half(**rounded).sample - wanted).abs().max() < 0.1 * wanted.abs().max()
    again = cls.from_config(written)
    assert again.network_options() == model.network_options()


@pytest.mark.parametrize('name', ['dit', 'pixart'])
@torch.no_grad()
def test_layerwise_casting_stores_in_float8(name):
    cls, model, inputs = case(name)
    wanted = model(**inputs).sample
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = [n for n, p in model.named_parameters() if p.dtype == torch.float8_e4m3fn]
    assert any('mlp.fc1' in n for n in stored) and not any('qkv' in n for n in stored)
    out = model(**inputs).sample
    assert 0 < (out - wanted).abs().mean() < 0.2 * wanted.abs().mean()


@pytest.mark.parametrize('name', ['dit', 'pixart'])
@torch.no_grad()
def test_blocks_compile_alone(name):
    _, model, inputs = case(name)
    wanted = model(**inputs).sample
    torch._dynamo.reset()
    model.compile_repeated_blocks(backend='eager')
    assert torch.allclose(model(**inputs).sample, wanted, atol=1e-5, rtol=1e-5)

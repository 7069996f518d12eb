"""What diffusers' own model tests ask of a model."""

import json

import pytest
import torch
from diffusers.training_utils import EMAModel
from tiny_pipelines import PRUNE, VIDEO_PRUNE, prompts, sparse_dit, sparse_latte, sparse_pixart
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from mmsparsedit.diffusers import (
    SparseDiTTransformer2DModel,
    SparseLatteTransformer3DModel,
    SparsePixArtTransformer2DModel,
)

NAMES = ['dit', 'pixart', 'latte']


# as few layers of a kind as there can be: compilers take longest
ONE_OF_A_KIND = dict(
    dit=dict(num_top=0, block_counts=(1, 1, 1, 0)),
    pixart=dict(num_top=0, block_counts=(1, 1, 1, 0)),
    latte=dict(num_top=0),
)


def case(name, **changes):
    x = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(0))
    given = dict(hidden_states=x, timestep=torch.tensor([700]))
    if name == 'dit':
        return (
            SparseDiTTransformer2DModel,
            sparse_dit(**changes),
            given | dict(class_labels=torch.tensor([3])),
        )
    text = prompts()
    if name == 'latte':
        given['hidden_states'] = torch.randn(1, 4, 4, 16, 16, generator=torch.manual_seed(0))
        given['encoder_hidden_states'] = text['prompt_embeds']
        return SparseLatteTransformer3DModel, sparse_latte(**changes), given
    return (
        SparsePixArtTransformer2DModel,
        sparse_pixart(**changes),
        given
        | dict(
            encoder_hidden_states=text['prompt_embeds'],
            encoder_attention_mask=text['prompt_attention_mask'],
        ),
    )


@pytest.mark.parametrize('name', NAMES)
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
        assert loaded.config.prune == model.config.prune and loaded.grid_at(999)[-2:] == (3, 3)
    written = json.loads((tmp_path / 'whole/config.json').read_text())
    assert written['_class_name'] == cls.__name__
    assert written['prune'] == (VIDEO_PRUNE if name == 'latte' else PRUNE)
    half = cls.from_pretrained(tmp_path / 'whole', torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    rounded = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    assert (half(**rounded).sample - wanted).abs().max() < 0.1 * wanted.abs().max()
    again = cls.from_config(written)
    assert again.network_options() == model.network_options()


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_a_half_variant_is_a_file_of_its_own(name, tmp_path):
    cls, model, inputs = case(name)
    wanted = model(**inputs).sample
    model.half()
    for shards, size in ((False, '1GB'), (True, '20KB')):
        folder = tmp_path / size
        model.save_pretrained(folder, variant='fp16', max_shard_size=size)
        files = sorted(path.name for path in folder.glob('diffusion_pytorch_model*'))
        assert files and all('.fp16' in file for file in files) and (len(files) > 1) == shards
        loaded = cls.from_pretrained(folder, variant='fp16')
        assert loaded.dtype == torch.float32
        assert (loaded(**inputs).sample - wanted).abs().max() < 0.02 * wanted.abs().max()
        for key, value in (
            cls.from_pretrained(folder, variant='fp16', torch_dtype=torch.float16)
            .state_dict()
            .items()
        ):
            assert torch.equal(value, model.state_dict()[key]), key
        with pytest.raises(OSError, match='diffusion_pytorch_model'):
            cls.from_pretrained(folder)


@pytest.mark.parametrize('name', NAMES)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    _, model, inputs = case(name)
    model.train()
    gradients = []
    for recompute in (False, True):
        model.zero_grad()
        if recompute:
            model.enable_gradient_checkpointing()
        model(**inputs).sample.square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0 and torch.equal(gradient, gradients[1][key]), key


@pytest.mark.parametrize('name', NAMES)
def test_an_average_of_weights_is_saved_and_loaded(name, tmp_path):
    cls, model, inputs = case(name)
    ema = EMAModel(model.parameters(), decay=0.5, model_cls=cls, model_config=model.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    ema.step(model.parameters())
    ema.save_pretrained(tmp_path)
    loaded = EMAModel.from_pretrained(tmp_path, cls)
    loaded.copy_to(model.parameters())
    for own, saved in zip(model.parameters(), ema.shadow_params, strict=True):
        assert torch.equal(own, saved)
    assert model(**inputs).sample.isfinite().all()


@pytest.mark.parametrize(
    'storage,compute,lost',
    [
        (torch.float16, torch.float32, 0.002),
        (torch.float8_e4m3fn, torch.float32, 0.2),
        (torch.float8_e5m2, torch.float32, 0.3),
        (torch.float8_e4m3fn, torch.bfloat16, 0.2),
    ],
)
@pytest.mark.parametrize('name', NAMES)
def test_layerwise_casting_stores_in_fewer_bits(name, storage, compute, lost):
    _, model, inputs = case(name)
    with torch.no_grad():
        wanted = model(**inputs).sample
    model.to(compute)
    model.enable_layerwise_casting(storage_dtype=storage, compute_dtype=compute)
    stored = [n for n, p in model.named_parameters() if p.dtype == storage]
    assert any('mlp.fc1' in n for n in stored) and not any('qkv' in n for n in stored)
    given = {k: v.to(compute) if v.is_floating_point() else v for k, v in inputs.items()}
    for training in (False, True):
        model.train(training)
        out = model(**given).sample
        assert out.dtype == compute
        assert 0 < (out - wanted).abs().mean() < lost * wanted.abs().mean()
    out.float().square().mean().backward()  # adapters are trained on weights stored so
    assert all(p.grad is not None for n, p in model.named_parameters() if 'x_embedder' in n)


@pytest.mark.parametrize('name', ['dit', 'latte'])  # Latte's blocks in space are PixArt's
@torch.no_grad()
def test_blocks_compile_alone(name):
    _, model, inputs = case(name, **ONE_OF_A_KIND[name])
    wanted = model(**inputs).sample
    torch._dynamo.reset()
    counter = CompileCounter()
    model.compile_repeated_blocks(fullgraph=True, backend=counter)
    limit = 16 if name == 'latte' else 8  # 8 is torch's: a block of videos has two axes
    with torch._dynamo.config.patch(recompile_limit=limit):
        assert torch.allclose(model(**inputs).sample, wanted, atol=1e-5, rtol=1e-5)
    first = counter.frame_count  # each way of reading context, and size, of a block
    with torch._dynamo.config.patch(error_on_recompile=True):
        model(**inputs)
    assert counter.frame_count == first


@pytest.mark.slow(4)
@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_one_graph_and_no_other(name):
    _, model, inputs = case(name, **ONE_OF_A_KIND[name])
    wanted = model(**inputs).sample
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')  # inductor takes 40 s of a compiler
    model.compile(fullgraph=True, backend=counter)
    assert torch.allclose(model(**inputs).sample, wanted, atol=1e-5, rtol=1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        model(**inputs)
    assert counter.frame_count == 1

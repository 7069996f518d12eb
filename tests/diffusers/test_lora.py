"""LoRA by PEFT on the transformers of diffusers."""

import pytest
import torch
from tiny_pipelines import prompts, sparse_dit, sparse_pixart

peft = pytest.importorskip('peft')

# 'proj' is the embedding of patches too, a convolution that is computed as a linear map
TARGETS = ['qkv', 'v', 'proj', 'fc1', 'fc2', 'q_linear', 'kv_linear', 'merge_sparse', 'merge_dense']


@pytest.mark.parametrize('name', ['dit', 'pixart'])
def test_adapters_reach_every_layer(name, tmp_path):
    """Generation and recovery read the rows of one matrix apart: an adapter serves them too."""
    inputs = dict(
        hidden_states=torch.randn(1, 4, 16, 16, generator=torch.manual_seed(0)),
        timestep=torch.tensor([700]),
    )
    if name == 'dit':
        model, inputs['class_labels'] = sparse_dit(), torch.tensor([3])
    else:
        model, given = sparse_pixart(), prompts()
        inputs['encoder_hidden_states'] = given['prompt_embeds']
    plain = model(**inputs).sample
    config = peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False)
    model.add_adapter(config)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapted = model(**inputs).sample
    adapted.square().mean().backward()
    assert all('lora_' in name and p.grad.abs().sum() > 0 for name, p in trained.items())
    assert (adapted - plain).abs().max() > 0.1
    # saved and loaded into a model without it, and merged into its weights
    model.save_lora_adapter(tmp_path)
    other = sparse_dit() if name == 'dit' else sparse_pixart()
    other.load_lora_adapter(tmp_path, prefix=None, use_safetensors=True)
    with torch.no_grad():
        assert torch.equal(other(**inputs).sample, adapted)
        other.fuse_lora()
        assert torch.allclose(other(**inputs).sample, adapted, atol=1e-4, rtol=1e-4)

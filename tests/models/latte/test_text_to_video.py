"""SparseLatteT2V: captions in space only, weights there and back, training by the generator."""

import pytest
import torch

from mmsparsedit.models import SparseLatteT2V, load_pretrained
from mmsparsedit.models.checkpoints import export_weights
from mmsparsedit.registry import MODELS

TINY = dict(
    input_size=8,
    num_frames=4,
    hidden_size=24,
    num_heads=2,
    caption_channels=10,
    model_max_length=6,
)
SPARSE = dict(num_bottom=2, num_sdtm=1, num_top=2)


def randomised(**changed) -> SparseLatteT2V:
    net = SparseLatteT2V(**{**TINY, **SPARSE, **changed})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.2)
    return net.eval()


def inputs(batch: int = 2) -> dict:
    draw = torch.Generator().manual_seed(1)
    return dict(
        x=torch.randn(batch, 4, 4, 8, 8, generator=draw),
        t=torch.arange(batch) * 300.0,
        y=torch.randn(batch, 6, 10, generator=draw),
    )


def test_layers_in_time_read_no_caption():
    net = randomised()
    layers = [getattr(layer, 'block', layer) for _, layer in net.named_layers()]
    assert [layer.cross_attn is None for layer in layers] == [False, True] * 5
    assert type(layers[0]).__name__ == type(layers[1]).__name__ == 'PixArtPoolingBlock'


@torch.no_grad()
def test_masked_tokens_have_no_influence():
    net, given = randomised(), inputs()
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0]])
    out = net(**given, mask=mask, grid=(2, 2, 3))
    assert out.shape == (2, 4, 8, 8, 8)
    changed = torch.where(mask[..., None] == 0, 1e3, given['y'])
    assert torch.equal(net(given['x'], given['t'], changed, mask, grid=(2, 2, 3)), out)
    assert not torch.equal(net(given['x'], given['t'], given['y'] + 1, mask, grid=(2, 2, 3)), out)


@torch.no_grad()
def test_the_dense_grid_is_the_middle_without_reduction():
    net, given = randomised(), inputs()
    assert torch.equal(net(**given, grid=(4, 4, 4)), net(**given))


@torch.no_grad()
def test_weights_of_diffusers_names():
    dense = randomised(num_bottom=0, num_sdtm=0, num_top=10)
    state = export_weights(dense, 'diffusers')
    assert 'temporal_transformer_blocks.4.attn1.to_q.weight' in state
    assert 'temporal_transformer_blocks.4.attn2.to_q.weight' not in state
    again = SparseLatteT2V(**TINY, num_bottom=0, num_sdtm=0, num_top=10).eval()
    report = load_pretrained(again, state)
    assert report.source == 'diffusers' and not report.dropped
    assert set(report.initialised) == {'pos_embed', 'temp_embed', 'y_embedder.y_embedding'}
    assert 'transformer_blocks.1.attn1.to_k.weight' in report.sources['top.2.attn.qkv.weight']
    assert torch.equal(again(**inputs()), dense(**inputs()))
    # a sparse one starts from it
    report = load_pretrained(SparseLatteT2V(**TINY, **SPARSE), state)
    assert sum('[q,k]' in key for key in report.dropped) == 2 * 2 * 3
    del state['temporal_transformer_blocks.4.ff.net.2.weight']
    with pytest.raises(ValueError, match=r'top\.9\.mlp\.fc2\.weight of the network is missing'):
        load_pretrained(again, state)


def test_the_generator_of_captions_trains_and_samples_it():
    prune = dict(
        type='TimestepPruneScheduler', r_min=0.7, r_max=0.9, token_grid=(4, 4, 4), num_frames=2
    )
    model = MODELS.build(
        dict(
            type='TextToImageGenerator',
            network=dict(type='SparseLatteT2V', **TINY, **SPARSE),
            diffusion=dict(type='GaussianDiffusion', channel_dim=2),
            sampler=dict(type='DDIMSampler', num_steps=2),
            prune=prune,
            cfg_scale=2.0,
        )
    )
    caption = dict(y=torch.randn(2, 6, 10), mask=torch.ones(2, 6, dtype=torch.long))
    losses = model.loss(torch.randn(2, 4, 4, 8, 8), **caption)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.network.final_layer.linear.weight.grad.abs().sum() > 0
    videos = model.eval().predict(seed=torch.tensor([4, 9]), **caption)
    assert videos[1].video.shape == (4, 4, 8, 8) and videos[1].video.dtype == torch.uint8


def test_refusals():
    with pytest.raises(ValueError, match='pe_interpolation must be above 0'):
        randomised(pe_interpolation=0)
    with pytest.raises(ValueError, match=r'captions of shape \(2, 6, 9\)'):
        randomised()(**{**inputs(), 'y': torch.zeros(2, 6, 9)})
    with pytest.raises(ValueError, match=r'latent of shape \(2, 3, 4, 8, 8\)'):
        randomised()(**{**inputs(), 'x': torch.zeros(2, 3, 4, 8, 8)})

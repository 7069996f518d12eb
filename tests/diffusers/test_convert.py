"""From this package's configs and checkpoints to diffusers and back."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_pipelines import randomised

from mmsparsedit.apis import init_model
from mmsparsedit.diffusers import from_checkpoint
from mmsparsedit.models import load_pretrained

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.mark.parametrize('name', ['sparsedit/digits', 'sparsepixart/captioned_digits'])
@torch.no_grad()
def test_there_and_back(name, tmp_path):
    generator = init_model(CONFIGS / f'{name}.py')
    net = randomised(generator.network)
    torch.save(net.state_dict(), tmp_path / 'trained.pth')
    model = from_checkpoint(CONFIGS / f'{name}.py', tmp_path / 'trained.pth')
    model.save_pretrained(tmp_path / 'folder')
    model = type(model).from_pretrained(tmp_path / 'folder')

    inputs = net.example_inputs(2)
    inputs['x'] = torch.randn(inputs['x'].shape, generator=torch.manual_seed(0))
    given = dict(hidden_states=inputs['x'])
    if 'mask' in inputs or inputs['y'].is_floating_point():
        given['encoder_hidden_states'] = inputs['y']
    else:
        given['class_labels'] = inputs['y']
    for t in (50, 900):
        inputs['t'] = torch.full((2,), float(t))
        wanted = net(**inputs, grid=generator.prune.grid_at(t))
        assert torch.equal(model(timestep=t, **given).sample, wanted)

    back = init_model(CONFIGS / f'{name}.py', tmp_path / 'folder').network
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in net.state_dict().items())
    assert not load_pretrained(back, tmp_path / 'folder').initialised


@torch.no_grad()
def test_a_text_to_video_network(tmp_path):
    network = dict(
        type='SparseLatteT2V', input_size=8, num_frames=4, hidden_size=24, num_heads=3,
        caption_channels=8, num_bottom=2, num_sdtm=1, num_top=0, sdtm=dict(num_sparse=4),
    )  # fmt: skip
    prune = dict(
        type='TimestepPruneScheduler', r_min=0.7, r_max=0.9, token_grid=(4, 4, 4), num_frames=2
    )
    config = Config(
        dict(
            default_scope='mmsparsedit',
            model=dict(
                type='TextToImageGenerator', network=network, prune=prune, cfg_scale=1.0,
                diffusion=dict(type='GaussianDiffusion', channel_dim=2),
                sampler=dict(type='DDIMSampler', num_steps=2),
            ),
        )
    )  # fmt: skip
    net = randomised(init_model(config).network)
    torch.save(net.state_dict(), tmp_path / 'trained.pth')
    model = from_checkpoint(config, tmp_path / 'trained.pth')
    assert model.config.num_sparse == 4 and model.config.video_length == 4
    x, y = torch.randn(2, 4, 4, 8, 8), torch.randn(2, 6, 8)
    wanted = net(x.transpose(1, 2), torch.full((2,), 900.0), y, grid=(2, 2, 2)).transpose(1, 2)
    assert model.grid_at(900) == (2, 2, 2)
    assert torch.equal(model(x, 900, y).sample, wanted)


def test_a_network_without_model_is_refused():
    with pytest.raises(ValueError, match='SparseLatte has no model of diffusers'):
        from_checkpoint('sparselatte/moving_digits.py')  # by its name in the package

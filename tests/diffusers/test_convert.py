"""From this package's configs and checkpoints to diffusers and back."""

from pathlib import Path

import pytest
import torch
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


def test_a_network_without_model_is_refused():
    with pytest.raises(ValueError, match='SparseLatte has no model of diffusers'):
        from_checkpoint(CONFIGS / 'sparselatte/moving_digits.py')

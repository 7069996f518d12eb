"""DiffusionInferencer: class, text and video, by MMEngine's conventions."""

import numpy as np
import pytest
import torch
from mmengine.infer import BaseInferencer
from PIL import Image

from mmsparsedit.apis import DiffusionInferencer, get_config
from mmsparsedit.visualization import is_grid, read_request

pytestmark = pytest.mark.filterwarnings('ignore:no weights')


def inferencer(name, **network):
    config = get_config(name)
    config.model.network.update(hidden_size=16, num_heads=2, **network)
    torch.manual_seed(0)
    made = DiffusionInferencer(config, device='cpu', show_progress=False)
    with torch.no_grad():  # a fresh network predicts zeros
        for weight in made.model.network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return made


@pytest.fixture(scope='module')
def digits():
    return inferencer('sparsedit/digits')


def test_all_labels_with_all_seeds(digits, tmp_path):
    images = digits(labels=[2, 7], seeds=[0, 1], num_steps=3, batch_size=3, out_dir=tmp_path)
    assert isinstance(digits, BaseInferencer)
    assert [type(image) for image in images] == [Image.Image] * 4
    assert images[0].size == (8, 8)
    asked = [dict(label=label, seed=seed) for label in (2, 7) for seed in (0, 1)]
    assert images['predictions'] == asked and images['visualization'] == list(images)
    # saved with their request, and what an image is does not depend on its batch
    saved = tmp_path / 'label7_seed1.png'
    assert np.array_equal(np.asarray(Image.open(saved)), np.asarray(images[3]))
    request = read_request(saved)
    assert request['sampler']['num_steps'] == 3 and request['seed'] == 1
    assert is_grid(tmp_path / 'grid.png') and not is_grid(saved)
    alone = digits([dict(label=7, seed=1)], num_steps=3)
    assert np.array_equal(np.asarray(alone[0]), np.asarray(images[3]))
    assert images._repr_png_().startswith(b'\x89PNG')


def test_the_sampling_of_a_call_is_its_own(digits):
    quick = digits(3, num_steps=2, sampler='ddpm', cfg_scale=1.0, return_datasamples=True)
    assert quick[0].image.shape == (1, 8, 8) and quick[0].label == 3
    assert digits.model.guidance.scale == 1.0 and digits.model.sampler.num_steps == 2
    list(digits.forward([dict(label=3, seed=0)]))
    assert digits.model.guidance.scale == 1.5 and digits.model.sampler.num_steps == 25


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (dict(labels=[11]), 'label 11 is out of range: the network has 10 classes'),
        (dict(), 'the generator is conditional: say what to sample'),
        (dict(labels=[]), 'nothing to sample'),
        (dict(prompts='a cat'), 'is conditional'),
        (dict(labels=1, prompts='a cat'), 'not both'),
        (dict(labels=1, seeds=[-1]), 'expected whole numbers from 0'),
        (dict(labels=1, steps=3), "unknown argument {'steps'}"),
        (dict(labels=1, sampler='ddmp'), "sampler 'ddmp' is unknown"),
    ],
)
def test_what_cannot_be_sampled_is_said(digits, call, message):
    with pytest.raises(ValueError, match=message):
        digits(**call)


def test_a_video_is_an_array(tmp_path):
    videos = inferencer('sparselatte/moving_digits')(labels=3, num_steps=2, out_dir=tmp_path)
    assert videos[0].shape == (4, 16, 16, 1) and videos[0].dtype == np.uint8
    assert (tmp_path / 'label3_seed0.mp4').is_file() and videos.grid().width > 100


def test_prompts():
    prompts = ['a two to the left of a small three', 'a zero to the left of an eight']
    images = inferencer('sparsepixart/captioned_digits')(prompts=prompts, num_steps=2)
    assert [each['prompt'] for each in images['predictions']] == prompts
    assert isinstance(images[1], Image.Image) and images[1].width == 2 * images[1].height


def test_a_config_in_a_checkpoint_is_not_run():
    with pytest.raises(ValueError, match='would be run as code'):
        DiffusionInferencer(None, 'checkpoint.pth')

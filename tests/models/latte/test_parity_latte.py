"""SparseLatte without bottom and middle is Latte: outputs of the reference network."""

import pytest
import torch

from mmsparsedit.diffusion import Guidance
from mmsparsedit.models import SparseLatte, load_pretrained

from parity import load_reference


def dense_latte(reference: dict, **changes) -> SparseLatte:
    config = reference['config']
    conditional = config['extras'] == 2
    arguments = dict(
        input_size=config['input_size'],
        patch_size=config['patch_size'],
        in_channels=config['in_channels'],
        num_frames=config['num_frames'],
        hidden_size=config['hidden_size'],
        num_heads=config['num_heads'],
        num_classes=config['num_classes'] if conditional else None,
        num_bottom=0,
        num_sdtm=0,
        num_top=config['depth'],
    )
    return SparseLatte(**{**arguments, **changes}).eval()


def loaded(name: str) -> tuple[SparseLatte, dict]:
    reference = load_reference(name)
    net = dense_latte(reference)
    report = load_pretrained(net, reference['state_dict'])
    assert report.source == 'latte'
    assert set(report.loaded) == set(net.state_dict()) and not report.dropped
    return net, reference


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return (actual - expected).abs().max().item()


@pytest.mark.parametrize('name', ['latte_tiny.pt', 'latte_uncond_tiny.pt'])
@torch.no_grad()
def test_output(name):
    net, reference = loaded(name)
    assert error(net(**reference['inputs']), reference['output']) <= 1e-5


@torch.no_grad()
def test_guided_output():
    net, reference = loaded('latte_tiny.pt')
    inputs = dict(reference['inputs_cfg'])
    scale = inputs.pop('cfg_scale')
    half = len(inputs['x']) // 2
    inputs['x'] = torch.cat([inputs['x'][:half]] * 2)  # the reference duplicates the first half
    conditional, unconditional = net(**inputs).chunk(2)
    guided = Guidance(scale).combine(conditional, unconditional, 4, channel_dim=2)
    expected = reference['output_cfg'].chunk(2)
    assert error(guided, expected[0]) <= 1e-5
    # the second half carries the same eps beside the variance of the unconditional half
    assert error(guided[:, :, :4], expected[1][:, :, :4]) <= 1e-5
    assert error(unconditional[:, :, 4:], expected[1][:, :, 4:]) <= 1e-5


@torch.no_grad()
def test_joint_images():
    net, reference = loaded('latte_uncond_tiny.pt')
    out = net(**reference['inputs_img'])
    assert error(out, reference['output_img']) <= 1e-5


@torch.no_grad()
def test_joint_images_with_labels_equal_the_images_alone():
    """Layers in space read an image by itself: each equals a one-frame clip without time."""
    net, reference = loaded('latte_tiny.pt')
    inputs = reference['inputs']
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 4, 8, 8, generator=generator)
    labels = torch.tensor([[0, 5, 2], [4, 4, 1]])
    out = net(
        torch.cat([inputs['x'], images], dim=1),
        inputs['t'],
        inputs['y'],
        use_image_num=3,
        y_image=labels,
    )
    assert error(out[:, :4], reference['output']) <= 1e-5
    for b, i in ((0, 0), (1, 2)):
        x = torch.cat([inputs['x'][b : b + 1], images[b : b + 1, i : i + 1]], dim=1)
        y = labels[b : b + 1, i]
        alone = net(x, inputs['t'][b : b + 1], y, use_image_num=1, y_image=y[:, None])
        assert error(alone[:, 4], out[b : b + 1, 4 + i]) <= 1e-5

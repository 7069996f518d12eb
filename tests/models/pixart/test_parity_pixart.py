"""SparsePixArt, dense, against the reference networks' numbers (256 and 1024-MS)."""

import pytest
import torch

from mmsparsedit.diffusion import Guidance
from mmsparsedit.models import SparsePixArt, load_pretrained

from parity import load_reference

ATOL = 1e-5


@pytest.fixture(scope='module', params=['pixart_tiny', 'pixartms_tiny'])
def reference(request):
    return load_reference(f'{request.param}.pt')


def build(reference: dict, pack: bool = False) -> SparsePixArt:
    config = reference['config']
    micro = 'img_hw' in reference['inputs']
    net = SparsePixArt(
        input_size=tuple(reference['inputs']['x'].shape[2:]),
        patch_size=config['patch_size'],
        hidden_size=config['hidden_size'],
        num_heads=config['num_heads'],
        caption_channels=config['caption_channels'],
        model_max_length=config['model_max_length'],
        pe_interpolation=config['lewei_scale'],
        pe_base_size=config['input_size'] // config['patch_size'],
        micro_condition=micro,
        num_bottom=0,
        num_sdtm=0,
        num_top=config['depth'],
        pack_captions=pack,
    ).eval()
    report = load_pretrained(net, reference['state_dict'])
    assert report.source == 'pixart'
    # the table of another grid is recomputed; all else is the reference's
    assert report.initialised == (['pos_embed'] if micro else [])
    assert len(report.loaded) + len(report.initialised) == len(net.state_dict())
    assert not [note for note in report.notes if 'differs' in note]
    return net


def arguments(inputs: dict) -> dict:
    """Inputs of the reference -> ours: no axis of one image per caption."""
    sizes = {key: inputs[key] for key in ('img_hw', 'aspect_ratio') if key in inputs}
    return dict(x=inputs['x'], t=inputs['timestep'], y=inputs['y'][:, 0], **sizes)


@pytest.mark.parametrize('pack', [False, True])
@torch.no_grad()
def test_masked_and_unmasked(reference, pack):
    net, inputs = build(reference, pack), reference['inputs']
    mask = inputs['mask'][:, 0, 0]
    masked = net(**arguments(inputs), mask=mask)
    torch.testing.assert_close(masked, reference['output'], rtol=0, atol=ATOL)
    unmasked = net(**arguments(inputs))
    torch.testing.assert_close(unmasked, reference['output_nomask'], rtol=0, atol=ATOL)
    # what PixArt gives its DPM and SA solvers: eps alone
    eps = masked[:, : net.in_channels]
    torch.testing.assert_close(eps, reference['output_dpmsolver'], rtol=0, atol=ATOL)


@torch.no_grad()
def test_guided(reference):
    """Three channels are guided; the null half keeps the caption's mask, in 1024-MS none has."""
    net, inputs = build(reference), reference['inputs_cfg']
    null = net.y_embedder.y_embedding
    torch.testing.assert_close(inputs['y'][2:, 0], null.expand(2, -1, -1), rtol=0, atol=0)
    mask = inputs['mask'].repeat(2, 1) if 'mask' in inputs else None
    kwargs = arguments(inputs)
    kwargs['x'] = kwargs['x'][:2].repeat(2, 1, 1, 1)
    conditional, unconditional = net(**kwargs, mask=mask).chunk(2)
    guidance = Guidance(reference['cfg_scale'], channels=3)
    guided = guidance.combine(conditional, unconditional, net.in_channels)
    torch.testing.assert_close(guided, reference['output_cfg'][:2], rtol=0, atol=ATOL)

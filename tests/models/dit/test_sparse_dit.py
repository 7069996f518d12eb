"""SparseDiT: reference values, an independent derivation, bad input."""

import pytest
import torch

from mmsparsedit.diffusion import Guidance
from mmsparsedit.models import load_pretrained
from mmsparsedit.registry import MODELS

import direct_dit
from parity import load_reference


def build(**overrides):
    config = dict(
        type='SparseDiT',
        input_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=48,
        num_heads=4,
        num_classes=10,
        num_bottom=1,
        num_sdtm=2,
        num_top=1,
        sdtm=dict(type='SDTM', block_counts=(1, 2, 1, 1)),
    )
    return MODELS.build({**config, **overrides})


def randomise(net, seed=0):
    """Every parameter random and non-zero: zero gates would hide what is behind them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            p.copy_(0.05 * noise.to(p.dtype))
    return net.eval()


def dense_tiny(reference):
    config = reference['config']
    return MODELS.build(
        dict(
            type='SparseDiT',
            num_bottom=0,
            num_sdtm=0,
            num_top=config['depth'],
            **{
                key: config[key]
                for key in (
                    'input_size',
                    'patch_size',
                    'in_channels',
                    'hidden_size',
                    'num_heads',
                    'num_classes',
                    'class_dropout_prob',
                    'learn_sigma',
                )
            },
        )
    ).eval()


def guided(net, inputs, scale, grid=None):
    """DiT's forward_with_cfg: [conditional; null], the first half of x used for both."""
    half = inputs['x'][: len(inputs['x']) // 2]
    kwargs = {} if grid is None else dict(grid=grid)
    output = net(torch.cat([half, half]), inputs['t'], inputs['y'], **kwargs)
    conditional, unconditional = output.chunk(2)
    guide = Guidance(scale, channels=3)
    first = guide.combine(conditional, unconditional, data_channels=4)
    # the reference returns the guided channels for both halves, the others of each half
    return torch.cat([first, torch.cat([first[:, :3], unconditional[:, 3:]], 1)])


@torch.no_grad()
def test_dense_parity_with_dit():
    reference = load_reference('dit_tiny.pt')
    net = dense_tiny(reference)
    load_pretrained(net, reference['state_dict'], 'dit')
    torch.testing.assert_close(net(**reference['inputs']), reference['output'], rtol=0, atol=1e-5)
    inputs = reference['inputs_cfg']
    output = guided(net, inputs, inputs['cfg_scale'])
    torch.testing.assert_close(output, reference['output_cfg'], rtol=0, atol=1e-5)


@torch.no_grad()
def test_sparse_parity_with_the_authors():
    reference = load_reference('sparsedit_official_tiny.pt')
    config = reference['config']
    net = build(
        input_size=config['input_size'],
        num_bottom=config['num_poolingformer'],
        num_sdtm=config['num_dumbbell'],
        num_top=config['num_normal_block'],
        sdtm=dict(type='SDTM', block_counts=config['dumbbell_group']),
        reinject_pos_embed=False,
    ).eval()
    report = load_pretrained(net, reference['state_dict'])
    assert report.source == 'sparsedit' and not report.dropped and not report.initialised
    output = net(**reference['inputs'], grid=(4, 4))
    torch.testing.assert_close(output, reference['output'], rtol=0, atol=1e-5)
    inputs = reference['cfg_inputs']
    output = guided(net, inputs, inputs['scale'], (4, 4))
    torch.testing.assert_close(output, reference['cfg_output'], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'size,patch,grid,counts,reinject',
    [
        ((24, 24), 2, (5, 5), (1, 2, 1, 1), True),  # 12 -> 5
        ((24, 24), 2, (12, 12), (1, 1, 1, 1), False),
        ((16, 24), 2, (3, 7), (1, 3, 1, 1), True),  # not square: 8 x 12 -> 3 x 7
        ((10, 6), 1, (4, 5), (2, 1, 2, 0), True),
    ],
)
@torch.no_grad()
def test_equals_the_formulas_in_float64(size, patch, grid, counts, reinject):
    net = build(
        input_size=size,
        patch_size=patch,
        sdtm=dict(type='SDTM', block_counts=counts),
        reinject_pos_embed=reinject,
    ).double()
    randomise(net)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, *size, generator=generator, dtype=torch.float64)
    t, y = torch.tensor([0.0, 417.5, 999.0]), torch.tensor([0, 9, 10])
    expected = direct_dit.forward(
        net.state_dict(),
        x,
        t,
        y,
        heads=4,
        patch=patch,
        dense=(size[0] // patch, size[1] // patch),
        grid=grid,
        bottom=1,
        sdtms=2,
        counts=counts,
        top=1,
        reinject=reinject,
    )
    # the angle of the timestep is float32 in both, as in DiT
    torch.testing.assert_close(net(x, t, y, grid=grid), expected, rtol=0, atol=1e-12)


def test_a_timestep_may_be_a_fraction_and_labels_select():
    net = randomise(build())
    x = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    whole = net(x, torch.tensor([3, 3]), torch.tensor([1, 1]), grid=(2, 2))
    fraction = net(x, torch.tensor([3.0, 3.5]), torch.tensor([1, 1]), grid=(2, 2))
    torch.testing.assert_close(whole[0], fraction[0])
    assert (whole[1] - fraction[1]).abs().max() > 1e-4


def test_published_parameter_counts():
    """The authors' logs, position table and merge biases counted."""
    for size, bottom, top, expected in ((32, 1, 3, 683_099_168), (64, 2, 2, 681_327_392)):
        with torch.device('meta'):
            net = MODELS.build(
                dict(type='SparseDiT', input_size=size, num_bottom=bottom, num_top=top)
            )
        assert sum(value.numel() for value in net.state_dict().values()) == expected


@pytest.mark.parametrize(
    'arguments,message',
    [
        (dict(grid=(5, 4)), 'exceeds the dense grid'),
        (dict(grid=(0, 2)), 'at least 1'),
        (dict(grid=(2,)), 'one length per axis'),
        (dict(x=torch.zeros(1, 4, 8, 9)), r'expected \(B, 4, 8, 8\)'),
        (dict(x=torch.zeros(1, 3, 8, 8)), r'expected \(B, 4, 8, 8\)'),
    ],
)
def test_bad_input_is_named(arguments, message):
    net = build()
    inputs = dict(x=torch.zeros(1, 4, 8, 8), t=torch.zeros(1), y=torch.zeros(1).long())
    with pytest.raises(ValueError, match=message):
        net(**{**inputs, **arguments})


def test_dense_network_refuses_a_grid():
    net = build(num_bottom=0, num_sdtm=0, num_top=2)
    with pytest.raises(ValueError, match='no SDTM'):
        net(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1).long(), grid=(2, 2))


@pytest.mark.parametrize(
    'overrides,message',
    [
        (dict(input_size=7), 'not a multiple of patch_size'),
        (dict(num_heads=5), 'not divisible by num_heads'),
        (dict(class_dropout_prob=1.0), 'class_dropout_prob'),
        (dict(upsample='cubic'), 'upsample must be one of'),
        (dict(sdtm=dict(type='SDTM', block_counts=(1, 2, 1))), 'four whole numbers'),
        (dict(sdtm=dict(type='SDTM', block_counts=(0, 2, 1, 1))), 'at least one generation'),
    ],
)
def test_bad_structure_is_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(**overrides)

"""Small generators of all three networks with four stages, for tests of how they are run."""

import torch

from mmsparsedit.registry import MODELS

IMAGE = dict(
    input_size=8, patch_size=1, in_channels=1, hidden_size=32, num_heads=2,
    num_bottom=1, num_sdtm=1, num_top=1,
)  # fmt: skip
NETWORKS = {
    'dit': dict(
        type='SparseDiT', num_classes=10, **IMAGE, sdtm=dict(type='SDTM', block_counts=(1, 1, 1, 0))
    ),
    'pixart': dict(
        type='SparsePixArt', caption_channels=16, model_max_length=5, **IMAGE,
        sdtm=dict(type='SDTM', block_counts=(1, 1, 1, 0)),
    ),
    'latte': dict(
        type='SparseLatte', num_frames=4, num_classes=10,
        **{**IMAGE, 'num_bottom': 2, 'num_top': 0},
        sdtm=dict(type='FactorisedSDTM', num_sparse=0),
    ),
}  # fmt: skip
# the least that a prune scheduler works on, where the depth is not what is tested
SHALLOW = {
    **NETWORKS['dit'],
    **dict(num_bottom=0, num_top=0, sdtm=dict(type='SDTM', block_counts=(1, 0, 1, 0))),
}


def build(kind='dit', sides=(6, 5, 4, 3), **overrides):
    torch.manual_seed(0)
    video = kind == 'latte'
    config = dict(
        type='TextToImageGenerator' if kind == 'pixart' else 'DiffusionGenerator',
        network=NETWORKS[kind],
        diffusion=dict(type='GaussianDiffusion', channel_dim=2 if video else 1),
        sampler=dict(type='DDPMSampler', num_steps=8),
        prune=dict(
            type='TimestepPruneScheduler',
            token_grid=(4, 8, 8) if video else (8, 8),
            grids=[(*((2,) if video else ()), side, side) for side in sides],
        ),
        cfg_scale=2.0,
    )  # fmt: skip
    generator = MODELS.build({**config, **overrides})
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return generator.eval()


def request(generator, batch):
    draw = torch.Generator().manual_seed(1)
    if hasattr(generator, 'text_encoder'):
        mask = torch.ones(batch, 5, dtype=torch.long)
        mask[:, 3:] = 0
        return dict(y=torch.randn(batch, 5, 16, generator=draw), mask=mask)
    return dict(label=torch.arange(batch) % 10)


def sampled(generator, batch=3):
    return generator.sample(range(batch), **request(generator, batch))


def at_each_stage(generator, batch=2):
    """The guided output of the network at one timestep of each stage."""
    model = generator.denoiser(batch, **request(generator, batch))
    x = torch.randn(batch, *generator.data_shape, generator=torch.Generator().manual_seed(3))
    x = x.to(generator.device)
    return [model(x, stage.t_start) for stage in generator.prune.stages]


def error(output, reference):
    """Root mean square deviation over root mean square."""
    return ((output - reference).square().mean() / reference.square().mean()).sqrt().item()

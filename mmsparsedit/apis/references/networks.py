"""Checks against repositories of networks: forward, guidance, losses, sampling loops.

Both sides have the same random weights, inputs and noise, in float32 on the CPU. Networks are
small; nothing that is compared depends on their size.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights
from mmsparsedit.registry import MODELS, TASK_UTILS

from .repositories import (
    Deviation,
    deviation,
    importing_from,
    normal,
    randomise,
    stub,
    xformers_stub,
)

FIXED = ('pos_embed', 'temp_embed')
SHAPE = dict(input_size=8, hidden_size=48, num_heads=4)
DENSE = dict(num_bottom=0, num_sdtm=0)
DEPTH, CLASSES, STEPS = 6, 10, 25
NO_NOISE = SimpleNamespace(generators=None)  # of a deterministic solver


def generator(network: dict, reference: torch.nn.Module, sampler: dict, **options):
    """Ours with the reference's weights, all of them."""
    config = dict(type='DiffusionGenerator', diffusion=dict(type='GaussianDiffusion'))
    built = MODELS.build({**config, 'network': network, 'sampler': sampler, **options}).eval()
    report = load_pretrained(built.network, reference.state_dict())
    unused = [key for key in report.initialised if key not in FIXED]
    if unused or [key for key in report.dropped if key not in FIXED]:
        raise ValueError(f'weights that only one side has: {unused} and {report.dropped}')
    return built


def training_terms(process, reference, model: Callable, x: Tensor, **kwargs) -> list[tuple]:
    """The loss terms of both sides for x_0 at timesteps that include both ends."""
    t = torch.tensor([0, 1, 500, 999])
    noise = normal(*x.shape, seed=2)
    theirs = reference.training_losses(model, x, t, model_kwargs=kwargs, noise=noise)
    x_t = process.add_noise(x, noise, t)
    ours = process.training_losses(model(x_t, t, **kwargs), x, noise, x_t, t)
    return [(ours[term], theirs[term]) for term in ('mse', 'vb', 'loss')]


def loops(built, create: Callable, model: Callable, x: Tensor, kwargs: dict, request: dict):
    """DDPM and DDIM of both sides; the reference carries both halves of guidance along."""
    halves = torch.cat([x, x])
    for kind, spec in (('DDPM', str(STEPS)), ('DDIM', f'ddim{STEPS}')):
        reference = create(spec)
        sample = getattr(reference, {'DDPM': 'p_sample_loop', 'DDIM': 'ddim_sample_loop'}[kind])
        torch.manual_seed(3)
        theirs = sample(
            model, halves.shape, halves, clip_denoised=False, model_kwargs=kwargs, device='cpu'
        )[: len(x)]
        torch.manual_seed(3)
        sampler = TASK_UTILS.build(dict(type=f'{kind}Sampler', num_steps=STEPS, respacing=spec))
        denoiser = built.denoiser(len(x), **request)
        ours = sampler(denoiser, x, built.diffusion, lambda: torch.randn_like(halves)[: len(x)])
        yield deviation(f'{kind}, {STEPS} steps, guided', (ours, theirs))


def check_classes(
    folder: Path,
    network: dict,
    build: Callable,
    x: Tensor,
    scale: float,
    guided: int | None,
    **stubs,
) -> Iterator[Deviation]:
    """What DiT and Latte share: labels and one diffusion package."""
    axis = 1 if x.ndim == 4 else 2
    t, y = torch.tensor([0.0, 1.0, 500.5, 999.0]), torch.tensor([0, 3, 9, CLASSES])
    with importing_from(folder, **stubs) as load:
        reference = randomise(build(load), FIXED)
        create = load('diffusion').create_diffusion
        built = generator(
            network, reference, dict(type='DDPMSampler'), cfg_scale=scale, cfg_channels=guided,
            diffusion=dict(type='GaussianDiffusion', channel_dim=axis),
        )  # fmt: skip
        yield deviation('network', (built.network(x, t, y), reference(x, t, y)))
        terms = training_terms(built.diffusion, create(''), reference.forward, x, y=y)
        yield deviation('losses (mse, vb)', *terms)
        y = y.clamp(max=CLASSES - 1)  # a request has a class
        halves, labels = torch.cat([x, x]), torch.cat([y, torch.full_like(y, CLASSES)])
        theirs = reference.forward_with_cfg(halves, t.new_full((8,), 500.0), labels, scale)[:4]
        yield deviation('guidance', (built.denoiser(len(x), label=y)(x, 500.0), theirs))
        kwargs = dict(y=labels, cfg_scale=scale)
        yield from loops(built, create, reference.forward_with_cfg, x, kwargs, dict(label=y))


@torch.no_grad()
def check_dit(folder: Path) -> Iterator[Deviation]:
    network = dict(type='SparseDiT', num_classes=CLASSES, num_top=DEPTH, **SHAPE, **DENSE)
    options = dict(num_classes=CLASSES, depth=DEPTH, **SHAPE)
    x = normal(4, 4, 8, 8)
    yield from check_classes(
        folder, network, lambda load: load('models').DiT(**options), x, 1.5, guided=3
    )


@torch.no_grad()
def check_latte(folder: Path) -> Iterator[Deviation]:
    network = dict(
        type='SparseLatte', num_frames=4, num_classes=CLASSES, num_top=DEPTH, **SHAPE, **DENSE
    )
    options = dict(num_frames=4, num_classes=CLASSES, depth=DEPTH, extras=2, **SHAPE)
    x = normal(4, 4, 4, 8, 8)
    # its text-to-video network, imported beside, needs an old diffusers
    yield from check_classes(
        folder, network, lambda load: load('models.latte').Latte(**options), x, 7.0, guided=None,
        models__latte_t2v=stub('models.latte_t2v', LatteT2V=None),
    )  # fmt: skip


@torch.no_grad()
def check_sparsedit(folder: Path) -> Iterator[Deviation]:
    """Its ``forward`` reads ``longshortcut``, which it never sets: set here, to its log's value."""
    shape = {**SHAPE, 'input_size': 16}
    sdtm = dict(block_counts=(1, 2, 1, 1))
    network = dict(
        type='SparseDiT', num_classes=CLASSES, num_bottom=2, num_sdtm=2, num_top=2, sdtm=sdtm,
        reinject_pos_embed=False, **shape,
    )  # fmt: skip
    options = dict(
        num_classes=CLASSES, depth=14, num_poolingformer=2, num_dumbbell=2, num_normal_block=2,
        semantic_size=4, dumbbell_group=[1, 2, 1, 1], **shape,
    )  # fmt: skip
    x, y = normal(4, 4, 16, 16), torch.tensor([0, 3, 9, CLASSES])
    t = torch.tensor([0.0, 1.0, 500.5, 999.0])
    with importing_from(folder) as load:
        reference = load('models').DiT(**options)
        reference.longshortcut = False
        reference = randomise(reference, FIXED)
        ours = MODELS.build(network).eval()
        report = load_pretrained(ours, reference.state_dict(), 'sparsedit')
        if report.initialised or report.dropped:
            raise ValueError(f'weights that only one side has: {report}')
        yield deviation('network, grid 4x4', (ours(x, t, y, grid=(4, 4)), reference(x, t, y)))


@torch.no_grad()
def check_sit(folder: Path) -> Iterator[Deviation]:
    network = dict(type='SparseSiT', num_classes=CLASSES, num_top=DEPTH, **SHAPE, **DENSE)
    flow = TASK_UTILS.build(dict(type='RectifiedFlow'))
    x, y = normal(4, 4, 8, 8), torch.tensor([0, 3, 9, 5])
    t = torch.tensor([0.0, 250.5, 500.0, 1000.0])
    tau = 1 - t / 1000
    with importing_from(folder) as load:
        options = dict(num_classes=CLASSES, depth=DEPTH, **SHAPE)
        reference = randomise(load('models').SiT(**options), FIXED)
        built = generator(
            network, reference, dict(type='EulerSampler'), diffusion=dict(type='RectifiedFlow'),
            cfg_scale=1.5, cfg_channels=3,
        )  # fmt: skip
        # ours predicts noise - data, at t = 1000 (1 - tau)
        yield deviation('network', (-built.network(x, t, y), reference(x, tau, y)))
        halves, labels = torch.cat([x, x]), torch.cat([y, torch.full_like(y, CLASSES)])
        theirs = reference.forward_with_cfg(halves, tau.new_full((8,), 0.5), labels, 1.5)[:4]
        denoiser = built.denoiser(len(x), label=y)
        yield deviation('guidance', (-denoiser(x, 500.0), theirs))
        data, noise = normal(*x.shape, seed=2), normal(*x.shape, seed=3)
        _, x_t, velocity = load('transport.path').ICPlan().plan(tau, noise, data)
        yield deviation('path', (flow.add_noise(data, noise, t), x_t), (data - noise, velocity))
        transport = load('transport')
        for theirs, ours in (('euler', 'EulerSampler'), ('heun2', 'HeunSampler')):
            # its solver counts points in time, one more than steps
            solver = transport.Sampler(transport.create_transport())
            sample = solver.sample_ode(sampling_method=theirs, num_steps=STEPS + 1)
            expected = sample(x, reference.forward, y=y)[-1]
            sampler = TASK_UTILS.build(dict(type=ours, num_steps=STEPS))

            def model(x: Tensor, t: float) -> Tensor:
                return built.network(x, torch.full((len(x),), t), y)

            found = sampler(model, x, flow, None)
            yield deviation(f'{theirs}, {STEPS} steps', (found, expected))


@torch.no_grad()
def check_pixart(folder: Path) -> Iterator[Deviation]:
    """Both networks, both paths of guidance, IDDPM and its DPM-Solver."""
    # what looks for xformers or mmcv, before there are stubs of them
    import diffusers  # noqa: F401
    from mmengine.registry import Registry

    import mmsparsedit.datasets  # noqa: F401

    skipped = dict(
        SASolverSampler=None, ControlPixArtHalf=None, ControlPixArtMSHalf=None
    )  # imported by its packages, used by nothing here
    logging = stub('logging', logger_initialized={})
    stubs = dict(
        mmcv=stub('mmcv', Registry=Registry, utils=stub('utils', logging=logging)),
        mmcv__utils=stub('mmcv.utils', logging=logging),
        mmcv__utils__logging=logging,
        mmcv__runner=stub('mmcv.runner', get_dist_info=lambda: (0, 1)),
        diffusion__sa_sampler=stub('diffusion.sa_sampler', **skipped),
        diffusion__model__nets__pixart_controlnet=stub('pixart_controlnet', **skipped),
        **xformers_stub(),
    )
    with importing_from(folder, **stubs) as load:
        nets, solvers = load('diffusion.model.nets'), load('diffusion')
        yield from _pixart(nets.PixArt, solvers, (8, 8), '256')
        for size in ((12, 8), (6, 10)):
            yield from _pixart(nets.PixArtMS, solvers, size, f'MS, {size[0]}x{size[1]}')


def _pixart(cls: type, solvers, size: tuple[int, int], name: str) -> Iterator[Deviation]:
    micro, length, width, scale = name != '256', 6, 32, 4.5
    options = dict(
        input_size=8, hidden_size=48, num_heads=4, depth=DEPTH, caption_channels=width,
        model_max_length=length, lewei_scale=2.0 if micro else 1.0,
    )  # fmt: skip
    reference = randomise(cls(**options), FIXED)
    network = dict(
        type='SparsePixArt', input_size=size, hidden_size=48, num_heads=4, num_top=DEPTH,
        caption_channels=width, model_max_length=length, micro_condition=micro,
        pe_interpolation=options['lewei_scale'], pe_base_size=4, **DENSE,
    )  # fmt: skip

    def build(channels: int | None, masked: bool):
        return generator(
            network, reference, dict(type='DDPMSampler'), type='TextToImageGenerator',
            cfg_scale=scale, cfg_channels=channels, mask_in_guidance=masked,
        )  # fmt: skip

    x, y = normal(4, 4, *size), normal(4, length, width, seed=4)
    mask = (torch.arange(length) < torch.tensor([6, 1, 3, 2])[:, None]).long()
    t = torch.tensor([0.0, 1.0, 500.5, 999.0])
    sizes = dict(
        img_hw=torch.tensor([[8.0 * side for side in size]]).repeat(4, 1),
        aspect_ratio=torch.full((4, 1), size[0] / size[1]),
    )
    info = dict(data_info=sizes) if micro else {}
    request = dict(y=y, mask=mask, **(sizes if micro else {}))
    built = build(3, masked=not micro)
    ours = built.network(x, t, **request)
    theirs = reference(x, t, y[:, None], mask[:, None, None], **info)
    yield deviation(f'{name}: network, captions masked', (ours, theirs))

    null = reference.y_embedder.y_embedding[None].expand(4, -1, -1)
    both = torch.cat([y, null])[:, None]
    if micro:
        info = dict(data_info={key: value.repeat(2, 1) for key, value in sizes.items()})
    kwargs = dict(cfg_scale=scale, mask=mask, **info)
    halves = torch.cat([x, x])
    theirs = reference.forward_with_cfg(halves, t.new_full((8,), 500.0), both, **kwargs)[:4]
    ours = built.denoiser(4, **request)(x, 500.0)
    mode = 'mask_in_guidance=False' if micro else 'the caption masked'
    yield deviation(f'{name}: guidance of forward_with_cfg, {mode}', (ours, theirs))

    if size == (8, 8):
        process = solvers.IDDPM('')

        def model(x: Tensor, timestep: Tensor) -> Tensor:
            return reference(x, timestep, y[:, None], mask[:, None, None])

        terms = training_terms(built.diffusion, process, model, x)
        yield deviation(f'{name}: losses (mse, vb)', *terms)
    theirs_kwargs = dict(y=both, **kwargs)
    for row in loops(built, solvers.IDDPM, reference.forward_with_cfg, x, theirs_kwargs, request):
        if not micro or row.part.startswith('DDPM'):
            yield Deviation(f'{name}: {row.part}', row.value)

    built = build(None, masked=True)
    if micro:  # its solver doubles the batch, and the sizes stay as they are
        info = dict(data_info={key: value.repeat(2, 1) for key, value in sizes.items()})
    solver = solvers.DPMS(
        reference.forward_with_dpmsolver, condition=y[:, None], uncondition=null[:, None],
        cfg_scale=scale, model_kwargs=dict(mask=mask, **info),
    )  # fmt: skip
    u, c = reference.forward_with_dpmsolver(
        halves, t.new_full((8,), 500.0), torch.cat([null, y])[:, None], mask=mask, **info
    ).chunk(2)
    ours = built.denoiser(4, **request)(x, 500.0)[:, :4]
    part = f'{name}: guidance of forward_with_dpmsolver, the caption masked'
    yield deviation(part, (ours, u + scale * (c - u)))
    for steps in (20, 27):  # 27 divides 999: whole timesteps on both sides
        theirs = solver.sample(
            x, steps=steps, order=2, skip_type='time_uniform', method='multistep'
        )
        options = dict(final_sigmas_type='sigma_min', lower_order_final=False)
        sampler = TASK_UTILS.build(dict(type='DiffusersSampler', num_steps=steps, options=options))
        ours = sampler(built.denoiser(4, **request), x, built.diffusion, NO_NOISE)
        yield deviation(f'{name}: DPM-Solver++, {steps} steps, guided', (ours, theirs))


@torch.no_grad()
def check_diffusers() -> Iterator[Deviation]:
    """Its networks on weights exported from ours, what both have been told to compute."""
    import diffusers

    x, t = normal(4, 4, 8, 8), torch.tensor([0, 1, 500, 999])
    y = torch.tensor([0, 3, 9, CLASSES])
    theirs = diffusers.DiTTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, num_layers=DEPTH, num_attention_heads=4,
        attention_head_dim=12, num_embeds_ada_norm=CLASSES,
    ).eval()  # fmt: skip
    for numerics in (False, True):
        network = dict(
            type='SparseDiT', num_classes=CLASSES, num_top=DEPTH, diffusers_numerics=numerics,
            **SHAPE, **DENSE,
        )  # fmt: skip
        ours = randomise(MODELS.build(network))
        theirs.load_state_dict(export_weights(ours, 'diffusers'), strict=False)
        expected = theirs(x, timestep=t, class_labels=y).sample
        part = f'DiTTransformer2DModel, diffusers_numerics={numerics}'
        yield deviation(part, (ours(x, t.float(), y), expected))

    y, mask = normal(4, 6, 32, seed=4), (torch.arange(6) < torch.tensor([6, 1, 3, 2])[:, None])
    for micro in (False, True):
        network = dict(
            type='SparsePixArt', num_top=DEPTH, caption_channels=32, model_max_length=6,
            micro_condition=micro, **SHAPE, **DENSE,
        )  # fmt: skip
        ours = randomise(MODELS.build(network))
        theirs = diffusers.PixArtTransformer2DModel(
            sample_size=8, num_layers=DEPTH, num_attention_heads=4, attention_head_dim=12,
            caption_channels=32, cross_attention_dim=48, use_additional_conditions=micro,
            interpolation_scale=1,
        ).eval()  # fmt: skip
        theirs.load_state_dict(export_weights(ours, 'diffusers'), strict=False)
        sizes = dict(resolution=torch.full((4, 2), 64.0), aspect_ratio=torch.ones(4, 1))
        expected = theirs(
            x, encoder_hidden_states=y, timestep=t, encoder_attention_mask=mask.long(),
            added_cond_kwargs=sizes if micro else dict(resolution=None, aspect_ratio=None),
        ).sample  # fmt: skip
        extra = dict(img_hw=sizes['resolution'], aspect_ratio=sizes['aspect_ratio'])
        found = ours(x, t.float(), y, mask.long(), **(extra if micro else {}))
        name = 'PixArtTransformer2DModel' + (', size-conditioned' if micro else '')
        yield deviation(name, (found, expected))

    network = dict(
        type='SparseLatteT2V', num_top=2 * DEPTH, caption_channels=32, num_frames=3,
        **SHAPE, **DENSE,
    )  # fmt: skip
    ours = randomise(MODELS.build(network))
    theirs = diffusers.LatteTransformer3DModel(
        sample_size=8, patch_size=2, video_length=3, in_channels=4, out_channels=8,
        num_layers=DEPTH, num_attention_heads=4, attention_head_dim=12,
        caption_channels=32, cross_attention_dim=48,
        attention_bias=True, activation_fn='gelu-approximate', norm_type='ada_norm_single',
        norm_elementwise_affine=False, norm_eps=1e-6, num_embeds_ada_norm=1000,
    ).eval()  # fmt: skip
    theirs.load_state_dict(export_weights(ours, 'diffusers'), strict=False)
    clips = normal(4, 3, 4, 8, 8, seed=5)  # frames before channels here, after them there
    # no mask: theirs does not repeat it over frames and fails; its pipeline cuts padding off
    expected = theirs(clips.transpose(1, 2), t, y, return_dict=False)[0]
    found = ours(clips, t.float(), y)
    yield deviation('LatteTransformer3DModel', (found, expected.transpose(1, 2)))

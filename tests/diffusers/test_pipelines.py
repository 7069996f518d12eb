"""The stock pipelines of diffusers with a sparse transformer."""

import sys

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from tiny_pipelines import (
    PRUNE,
    VIDEO_PRUNE,
    dense_dit,
    dense_latte,
    dense_pixart,
    dit_pipeline,
    latte_pipeline,
    latte_prompts,
    pixart_pipeline,
    prompts,
    randomised,
    sparse_dit,
    sparse_latte,
    sparse_pixart,
)

from mmsparsedit.diffusers import sparsify
from mmsparsedit.diffusion import Guidance

import processes

SEGMENTS = dict(num_bottom=1, num_top=1, block_counts=(1, 1, 1, 1))


@pytest.fixture(scope='module')
def dit():
    return sparse_dit()


@pytest.fixture(scope='module')
def pixart():
    return sparse_pixart()


def recorded(model):
    """The grids of the calls to come."""
    grids, own = [], model.grid_at

    def grid_at(*args):
        grids.append(own(*args))
        return grids[-1]

    model.grid_at = grid_at
    return grids


def walked(model, scheduler, latents, steps, scale, condition):
    """This package's network in a loop of its own: schedule, guidance of all eps channels."""
    scheduler.set_timesteps(steps)
    x, grids = latents, []
    for t in scheduler.timesteps:
        grids.append(model.prune.grid_at(int(t)))
        time = torch.full((2 * len(x),), float(t))
        out = model.network(torch.cat([x, x]), time, grid=grids[-1], **condition)
        eps = Guidance(scale).combine(*out.chunk(2), 4)[:, :4]
        x = scheduler.step(eps, t, x, return_dict=False)[0]
    return x, grids


@torch.no_grad()
def test_dit_pipeline_is_our_loop(dit):
    pipe, grids = dit_pipeline(dit), recorded(dit)
    images = pipe([3, 7], generator=torch.manual_seed(5), num_inference_steps=6, output_type='pt')
    noise = torch.randn(2, 4, 16, 16, generator=torch.manual_seed(5))
    labels = torch.tensor([3, 7, 1000, 1000])
    x, expected = walked(dit, DDIMScheduler(), noise, 6, 4.0, dict(y=labels))
    assert grids == expected and len(set(grids)) == 4  # (3, 3) in noise ... (6, 6)
    decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert torch.allclose(images.images, decoded.clamp(0, 1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_pixart_pipeline_is_our_loop(pixart):
    pipe, grids, given = pixart_pipeline(pixart), recorded(pixart), prompts(2)
    noise = torch.randn(2, 4, 16, 16, generator=torch.manual_seed(5))
    latents = pipe(
        **given,
        latents=noise.clone(),
        num_inference_steps=6,
        use_resolution_binning=False,
        output_type='latent',
    ).images
    condition = dict(
        y=torch.cat([given['prompt_embeds'], given['negative_prompt_embeds']]),
        mask=torch.cat([given['prompt_attention_mask'], given['negative_prompt_attention_mask']]),
    )
    x, expected = walked(pixart, DPMSolverMultistepScheduler(), noise, 6, 4.5, condition)
    assert grids == expected and len(set(grids)) == 4
    assert (latents - x).abs().max() <= 1e-5 * x.abs().max()


@torch.no_grad()
def test_latte_pipeline_is_our_loop():
    model = randomised(sparse_latte(sample_size=8), 0.1)
    pipe, grids, given = latte_pipeline(model), recorded(model), latte_prompts()
    noise = torch.randn(1, 4, 4, 8, 8, generator=torch.manual_seed(5))
    options = dict(num_inference_steps=6, guidance_scale=4.0)
    latents = pipe(**given, **options, latents=noise.clone(), output_type='latent').frames
    y = torch.cat([given['negative_prompt_embeds'], given['prompt_embeds']])
    # our networks have the frames before the channels
    scheduler, x = DDIMScheduler(), noise.transpose(1, 2)
    scheduler.set_timesteps(6)
    expected = [model.prune.grid_at(int(t)) for t in scheduler.timesteps]
    for t, grid in zip(scheduler.timesteps, expected, strict=True):
        out = model.network(torch.cat([x, x]), t.expand(2), y, grid=grid)
        null, eps = out[:, :, :4].chunk(2)
        x = scheduler.step(null + 4.0 * (eps - null), t, x, return_dict=False)[0]
    assert grids == expected and len(set(grids)) == 3 and grids[0] == (2, 1, 1)
    assert (latents - x.transpose(1, 2)).abs().max() <= 1e-5 * x.abs().max()
    video = pipe(**given, **options, generator=torch.manual_seed(5), output_type='pt').frames
    assert video.shape == (1, 4, 3, 64, 64)


LOADED = """
import sys, torch
import mmsparsedit.diffusers  # diffusers imports no module because a folder names it
from diffusers import DiTPipeline
pipe = DiTPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
images = pipe([3], generator=torch.manual_seed(5), num_inference_steps=4, output_type='pt').images
torch.save(images, sys.argv[2])
"""


def test_a_saved_pipeline_is_the_same_in_another_process(dit, tmp_path):
    pipe = dit_pipeline(dit)
    draw = dict(num_inference_steps=4, output_type='pt')
    images = pipe([3], generator=torch.manual_seed(5), **draw).images
    pipe.save_pretrained(tmp_path / 'pipe')
    assert '"mmsparsedit.diffusers"' in (tmp_path / 'pipe/model_index.json').read_text()
    assert '"r_min": 0.4' in (tmp_path / 'pipe/transformer/config.json').read_text()
    assert (tmp_path / 'pipe/transformer/diffusion_pytorch_model.safetensors').is_file()
    command = [sys.executable, '-c', LOADED, str(tmp_path / 'pipe'), str(tmp_path / 'images.pt')]
    done = processes.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / 'images.pt'), images)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['dit', 'pixart'])
@torch.no_grad()
def test_half_precision(name, dtype):
    if name == 'dit':
        model, condition = sparse_dit(), dict(class_labels=torch.tensor([3]))
    else:
        given = prompts()
        model = sparse_pixart()
        condition = dict(
            encoder_hidden_states=given['prompt_embeds'],
            encoder_attention_mask=given['prompt_attention_mask'],
        )
    x = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(0))
    exact = model(x, timestep=torch.tensor([700]), **condition).sample
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in condition.items()}
    out = model.to(dtype)(x.to(dtype), timestep=torch.tensor([700]), **half).sample
    assert out.dtype == dtype
    assert (out.float() - exact).abs().max() < 0.1 * exact.abs().max()


def drawn(pipe, name, **options):
    """Images of four steps, float32."""
    if name == 'dit':
        options['class_labels'] = [3]
    else:
        given = latte_prompts() if name == 'latte' else prompts()
        dtype = pipe.transformer.dtype
        options |= {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in given.items()}
    if name == 'pixart':
        options['use_resolution_binning'] = False
    options |= dict(generator=torch.manual_seed(5), num_inference_steps=4, output_type='pt')
    return pipe(**options)[0].float()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['dit', 'pixart', 'latte'])
@torch.no_grad()
def test_pipelines_in_half_precision_are_as_near_as_diffusers_own(name, dtype):
    """Random weights are a bad case: what a dense model of diffusers loses is the measure."""
    build, wrap, prune, segments = {
        'dit': (dense_dit, dit_pipeline, PRUNE, SEGMENTS),
        'pixart': (dense_pixart, pixart_pipeline, PRUNE, SEGMENTS),
        'latte': (dense_latte, latte_pipeline, VIDEO_PRUNE, dict(num_bottom=2, num_top=0)),
    }[name]
    pipe = wrap(build(scale=0.1))
    deviations = []
    for each in (pipe, sparsify(pipe, prune, **segments)):
        exact = drawn(each, name)
        half = drawn(each.to(dtype), name)
        each.to(torch.float32)
        deviations.append((half - exact).abs().mean() / exact.std())
    assert 0 < deviations[1] < 1.5 * deviations[0]


@pytest.mark.parametrize('name', ['dit', 'pixart', 'latte'])
@torch.no_grad()
def test_whole_models_are_offloaded(name):
    """The hooks of offloading, with the CPU for the accelerator that they move to."""
    pytest.importorskip('accelerate')
    build, wrap = {
        'dit': (sparse_dit, dit_pipeline),
        'pixart': (sparse_pixart, pixart_pipeline),
        'latte': (sparse_latte, latte_pipeline),
    }[name]
    pipe = wrap(build())
    plain = drawn(pipe, name)
    pipe.enable_model_cpu_offload(device='cpu')
    moved = []
    for model in (pipe.transformer, pipe.vae):
        hook, own = model._hf_hook, model._hf_hook.pre_forward
        hook.pre_forward = lambda module, *given, own=own, **more: (
            moved.append(type(module).__name__),
            own(module, *given, **more),
        )[1]
    assert torch.equal(drawn(pipe, name), plain)
    assert moved[0] == type(pipe.transformer).__name__
    pipe.remove_all_hooks()
    assert torch.equal(drawn(pipe, name), plain)


def test_what_it_cannot_use_is_refused(dit):
    x, labels = torch.zeros(2, 4, 16, 16), torch.tensor([1, 2])
    with pytest.raises(ValueError, match='several stages'):
        dit(x, torch.tensor([10, 900]), labels)
    with pytest.raises(ValueError, match='cross_attention_kwargs'):
        dit(x, torch.tensor(10), labels, dict(scale=0.5))
    with pytest.raises(ValueError, match='class_labels missing'):
        dit(x, torch.tensor(10))
    with pytest.raises(ValueError, match='out_channels 6'):
        sparse_dit(out_channels=6)
    assert isinstance(dit(x, torch.tensor(10), labels, return_dict=False), tuple)

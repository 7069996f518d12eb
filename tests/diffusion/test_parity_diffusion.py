"""Gaussian diffusion against the reference implementation's numbers."""

import numpy as np
import pytest
import torch

from mmsparsedit.diffusion import (
    GaussianDiffusion,
    ddim_step,
    ddpm_step,
    sample_ddim,
    sample_ddpm,
    space_timesteps,
)

from parity import load_reference

SPACINGS = ('1000', '250', '25', 'ddim25')


@pytest.fixture(scope='module')
def reference():
    return load_reference('diffusion.pt')


def process(name: str) -> GaussianDiffusion:
    diffusion = GaussianDiffusion()
    return diffusion if name == '1000' else diffusion.respaced(name)


@pytest.mark.parametrize('name', SPACINGS)
def test_schedules(reference, name):
    expected, diffusion = reference[name], process(name)
    assert diffusion.timestep_map == expected['timestep_map'].tolist()
    for table in (
        'betas',
        'alphas_cumprod',
        'alphas_cumprod_prev',
        'posterior_variance',
        'posterior_log_variance_clipped',
        'posterior_mean_coef1',
        'posterior_mean_coef2',
    ):
        np.testing.assert_allclose(
            getattr(diffusion, table), expected[table], rtol=1e-10, atol=1e-15, err_msg=table
        )


def test_timestep_maps(reference):
    for spec, expected in reference['timestep_maps'].items():
        assert space_timesteps(1000, spec) == expected.tolist(), spec


@pytest.mark.parametrize('dtype,atol', [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize('name', SPACINGS)
def test_posteriors_steps_and_losses(reference, name, dtype, atol):
    expected, diffusion = reference[name], process(name)
    values = {k: v.to(dtype) if v.is_floating_point() else v for k, v in expected['inputs'].items()}
    x, t, output = values['x_t'], values['t'], values['model_output']

    def close(actual, wanted, atol=atol):
        # relative to the largest value: x_0 from eps cancels numbers of some hundreds in fp32
        error = (actual - wanted.to(dtype)).abs().max() / wanted.abs().max().clamp(min=1)
        assert error <= atol, error

    close(diffusion.add_noise(values['x_start'], values['noise'], t), values['x_t'])
    for clip in (0, 1):
        p = diffusion.p_mean_variance(output, x, t, clip_denoised=bool(clip))
        wanted = expected[f'p_mean_variance_clip{clip}']
        close(p.mean, wanted['mean'])
        close(p.variance, wanted['variance'])
        close(p.log_variance, wanted['log_variance'])
        close(p.x_start, wanted['pred_xstart'])
    mean, log_variance = diffusion.q_posterior(values['x_start'], x, t)
    close(mean, expected['q_posterior']['mean'])
    close(log_variance, expected['q_posterior']['log_variance'])

    noise = expected['step_noise'].to(dtype)
    clip = _clipped(expected, diffusion, output, x, t, noise)
    for row, i in enumerate(t.tolist()):
        one = slice(row, row + 1)
        step = ddpm_step(diffusion, output[one], x[one], i, noise[one], clip)
        close(step, expected['p_sample']['sample'][one])
        for eta in (0, 1):
            step = ddim_step(diffusion, output[one], x[one], i, noise[one], float(eta), clip)
            # the reference rounds to fp32, and DDIM's eps = (x / sqrt(ab) - x_0) / ... divides
            # that rounding by as little as 0.01: its own error is beyond 1e-6
            close(step, expected[f'ddim_eta{eta}']['sample'][one], max(atol, 4e-6))

    losses = diffusion.training_losses(output, values['x_start'], values['noise'], x, t)
    for term in ('mse', 'vb', 'loss'):
        close(losses[term], expected['training_losses'][term])


def _clipped(expected, diffusion, output, x, t, noise) -> bool:
    """Whether the recorded steps clamp the predicted clean image."""
    unclipped = diffusion.p_mean_variance(output, x, t).x_start
    return not torch.allclose(
        unclipped, expected['p_sample']['pred_xstart'].to(unclipped.dtype), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('kind', ['ddpm', 'ddim'])
def test_loops(reference, kind):
    expected = reference[f'loop_{kind}25']
    noises = iter(expected['noises'])

    def model(x, t):
        s = torch.sin(torch.tensor(t / 1000 * 1.5707963))
        return torch.cat([0.9 * s * x, torch.cos(x) * s], dim=1)

    sample = {'ddpm': sample_ddpm, 'ddim': sample_ddim}[kind]
    diffusion = GaussianDiffusion().respaced('ddim25' if kind == 'ddim' else '25')
    out = sample(model, expected['z'], diffusion, lambda: next(noises))
    torch.testing.assert_close(out, expected['out'], rtol=1e-5, atol=1e-5)

"""Samplers on Gaussian data, where the exact score and the exact answer are known.

Every sampler is affine in its starting noise and in the noise it draws, so its mean and variance
are computed exactly from unit probes: row 0 starts at zero, row 1 at one, row 2 + k receives the
k-th drawn noise alone.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils._python_dispatch import TorchDispatchMode

from mmsparsedit.diffusion import (
    DDIMSampler,
    DDPMSampler,
    DiffusersSampler,
    EulerSampler,
    GaussianDiffusion,
    HeunSampler,
    RectifiedFlow,
    space_timesteps,
)
from mmsparsedit.diffusion.samplers import ddim_step, ddpm_step
from mmsparsedit.registry import TASK_UTILS

MEAN, STD = 0.7, 0.4


def exact_gaussian(diffusion):
    """Exact eps, and the exact variance of the reverse step, of a (respaced) process."""

    def model(x, t):
        i = diffusion.timestep_map.index(int(t))
        ab = diffusion.alphas_cumprod[i]
        marginal = ab * STD**2 + 1 - ab
        eps = (1 - ab).sqrt() * (x - ab.sqrt() * MEAN) / marginal
        # p(x_{i-1} | x_i) is Gaussian: the posterior's variance plus that of x_0 given x_i
        x_start_variance = STD**2 * (1 - ab) / marginal
        variance = diffusion.posterior_variance[i]
        variance = variance + diffusion.posterior_mean_coef1[i] ** 2 * x_start_variance
        low, high = diffusion.posterior_log_variance_clipped[i], diffusion.betas[i].log()
        share = (variance.log() - low) / (high - low)
        return torch.cat([eps, torch.full_like(x, (2 * share - 1).item())], 1)

    return model


def exact_eps(diffusion):
    """Exact eps at any timestep of the trained process, fractions interpolated."""

    def model(x, t):
        low = int(t)
        high = min(low + 1, diffusion.num_timesteps - 1)
        log_ab = diffusion.alphas_cumprod.log()
        ab = (log_ab[low] + (t - low) * (log_ab[high] - log_ab[low])).exp().to(x.dtype)
        eps = (1 - ab).sqrt() * (x - ab.sqrt() * MEAN) / (ab * STD**2 + 1 - ab)
        return torch.cat([eps, torch.zeros_like(x)], 1)

    return model


def exact_velocity(x, t):
    s = t / 1000
    marginal = (1 - s) ** 2 * STD**2 + s**2
    centred = (x - (1 - s) * MEAN) / marginal
    return s * centred - (MEAN + (1 - s) * STD**2 * centred)


def mean_and_std(sampler, model, diffusion, draws):
    rows = draws + 2
    x = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
    x[1] = 1

    class Probes:
        generators = None
        count = 0

        def __call__(self):
            drawn = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
            if draws:
                drawn[2 + self.count] = 1
            self.count += 1
            return drawn

    out = sampler(model, x, diffusion, Probes()).flatten()
    gains = out[1:] - out[0]
    return out[0].item(), gains.square().sum().sqrt().item()


@pytest.mark.parametrize('steps', [5, 25, 250, 1000])
def test_ddpm_is_exact_with_the_exact_variance(steps):
    diffusion = GaussianDiffusion()
    sampler = DDPMSampler(steps)
    model = exact_gaussian(sampler.process(diffusion))
    mean, std = mean_and_std(sampler, model, diffusion, steps)
    # what remains is that x_T is not quite pure noise: sqrt(ab_T) = 0.0064
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert std == pytest.approx(STD, abs=2e-3)


def errors(make, model, diffusion, counts, draws=lambda n: 0):
    result = []
    for n in counts:
        mean, std = mean_and_std(make(n), model, diffusion, draws(n))
        result.append((abs(mean - MEAN), abs(std - STD)))
    return result


def test_ddim_shrinks_at_first_order():
    diffusion = GaussianDiffusion()
    found = errors(DDIMSampler, exact_eps(diffusion), diffusion, (25, 50, 100, 200))
    stds = [std for _, std in found]
    for coarse, fine in zip(stds, stds[1:], strict=False):
        assert 1.6 < coarse / fine < 2.6, stds
    assert found[-1][0] < 5e-3


def test_stochastic_ddim_reaches_the_distribution():
    diffusion = GaussianDiffusion()
    model = exact_eps(diffusion)
    found = [mean_and_std(DDIMSampler(n, eta=1.0), model, diffusion, n) for n in (50, 200, 1000)]
    stds = [abs(std - STD) for _, std in found]
    assert stds[0] / stds[1] > 2.5 and stds[1] / stds[2] > 3.5 and stds[2] < 5e-3, stds
    assert abs(found[-1][0] - MEAN) < 3e-3


@pytest.mark.parametrize('make,order', [(EulerSampler, 1), (HeunSampler, 2)])
def test_flow_solvers_shrink_at_their_order(make, order):
    found = errors(make, exact_velocity, RectifiedFlow(), (20, 40, 80, 160))
    for moment in range(2):
        values = [error[moment] for error in found]
        if max(values) < 1e-12:
            continue  # the mean of Gaussian data is exact for any step
        for coarse, fine in zip(values[1:], values[2:], strict=False):
            assert coarse / fine == pytest.approx(2**order, rel=0.15), values
    assert found[-1][1] < 10.0 ** (-1 - order)


@pytest.mark.parametrize(
    'scheduler,options,order',
    [
        ('DPMSolverMultistepScheduler', dict(use_karras_sigmas=False), 2),
        ('UniPCMultistepScheduler', {}, 2),
        ('DDIMScheduler', dict(clip_sample=False, set_alpha_to_one=True), 1),
    ],
)
def test_diffusers_solvers_reach_the_distribution(scheduler, options, order):
    pytest.importorskip('diffusers')
    diffusion = GaussianDiffusion()
    found = errors(
        lambda n: DiffusersSampler(n, scheduler, options),
        exact_eps(diffusion),
        diffusion,
        (10, 20, 40),
    )
    stds = [std for _, std in found]
    if order == 1:
        assert all(1.7 < a / b < 2.3 for a, b in zip(stds, stds[1:], strict=False)), stds
    else:  # asymptotic from 20 steps on
        assert stds[0] / stds[1] > 3 and stds[1] / stds[2] > 4, stds
    assert stds[2] < 0.08 / order**2
    # the mean keeps an error of the start: x_T is drawn at mean 0, not sqrt(ab_T) of the data's
    assert found[2][0] < 5e-3, found


def test_stochastic_solvers_draw_from_the_requests():
    pytest.importorskip('diffusers')
    from mmsparsedit.diffusion import RequestNoise

    diffusion = GaussianDiffusion()
    model, sampler = exact_eps(diffusion), DiffusersSampler(8, 'SASolverScheduler')

    def sample(seeds):
        noise = RequestNoise(seeds, (1, 4, 4))
        return sampler(model, noise(), diffusion, noise)

    whole = sample([3, 4, 5])
    assert torch.equal(whole[1:2], sample([4])) and not torch.equal(whole[0], whole[1])


def test_ddim_of_diffusers_is_ours():
    """Two implementations of one formula on the same timesteps."""
    pytest.importorskip('diffusers')
    diffusion = GaussianDiffusion()
    model = exact_eps(diffusion)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class NoNoise:
        generators = None

        def __call__(self):
            return torch.zeros_like(x)

    options = dict(clip_sample=False, set_alpha_to_one=True, timestep_spacing='leading')
    theirs = DiffusersSampler(25, 'DDIMScheduler', options)(model, x, diffusion, NoNoise())
    ours = DDIMSampler(25)(model, x, diffusion, NoNoise())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'build,message',
    [
        (lambda: DDPMSampler(0), 'num_steps must be a whole number, at least 1, got 0'),
        (lambda: DDPMSampler(1001).timesteps(GaussianDiffusion()), '1 to 1000, got 1001'),
        (lambda: DDIMSampler(10, eta=-1), 'eta must be at least 0'),
        (lambda: EulerSampler(2.5), 'whole number'),
        (lambda: DiffusersSampler(10, 'Fast').timesteps(GaussianDiffusion()), 'DPMSolverMultistep'),
        (lambda: DiffusersSampler(10).timesteps(RectifiedFlow()), 'use EulerSampler'),
        (lambda: space_timesteps(1000, 'fast'), 'expected'),
        (lambda: space_timesteps(1000, '600,600'), '600 steps in a section of 500'),
        (lambda: RectifiedFlow(time_distribution='cosine'), "'uniform', 'logit_normal'"),
        (lambda: GaussianDiffusion(beta_end=2.0), 'must rise inside'),
    ],
)
def test_bad_values_are_refused_with_what_is_accepted(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_timesteps_name_every_network_call():
    seen = []

    def model(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    flow = RectifiedFlow()
    for sampler in (EulerSampler(5), HeunSampler(3)):
        seen.clear()
        sampler(model, torch.zeros(1, 1, 1, 1), flow, lambda: None)
        assert seen == sampler.timesteps(flow)
    assert EulerSampler(5).timesteps(flow) == [1000, 800, 600, 400, 200]
    assert DDIMSampler(25).timesteps(GaussianDiffusion())[:2] == [960, 920]
    assert DDPMSampler(25).timesteps(GaussianDiffusion())[0] == 999


def test_logit_normal_times_follow_their_density_within_stages():
    flow = RectifiedFlow(time_distribution='logit_normal', logit_mean=-0.4, logit_std=0.8)
    u = (torch.arange(20000) + 0.5) / 20000
    t = flow.sample_timesteps(u, 0, 1000).double() / 1000
    logits = torch.logit(t)
    assert logits.mean().item() == pytest.approx(-0.4, abs=5e-3)
    assert logits.std().item() == pytest.approx(0.8, abs=5e-3)
    part = flow.sample_timesteps(u, 250, 500).double()
    assert 250 <= part.min() and part.max() < 500
    inside = t[(t >= 0.25) & (t < 0.5)]
    assert part.mean().item() == pytest.approx(1000 * inside.mean().item(), abs=1)
    for s in (0.1, 0.5, 0.9):
        assert flow.time_quantile(flow.time_cdf(s)) == pytest.approx(s)


def test_dpm_solver_of_the_pixart_config_ends_as_pixarts():
    """At t = 1/1000 of its continuous time, which is timestep 0, not at sigma 0."""
    pytest.importorskip('diffusers')
    root = Path(__file__).parents[2]
    config = Config.fromfile(root / 'configs/sparsepixart/sam_256_dpm20.py')
    diffusion = TASK_UTILS.build(dict(type='GaussianDiffusion'))
    sampler = TASK_UTILS.build(config.model.sampler.to_dict())
    scheduler = sampler.build(diffusion)
    alpha_bar = 1 - diffusion.betas[0].item()
    sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
    assert scheduler.sigmas[-1].item() == pytest.approx(sigma, rel=1e-3)
    assert sampler.timesteps(diffusion)[:2] == [999.0, 949.0]


@pytest.mark.parametrize(('step', 'most'), [(ddim_step, 9), (ddpm_step, 16)])
def test_a_step_is_a_few_kernels_and_reads_no_table_on_the_device(step, most):
    kernels = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if getattr(result, 'is_meta', False) and not function.is_view:
                kernels.append(str(function))
            return result

    process = GaussianDiffusion().respaced('25')
    x = torch.zeros(2, 4, 8, 8, device='meta')
    with Record():
        step(process, torch.cat([x, x], 1), x, 10, x)
    assert len(kernels) - 1 == most  # cat is the test's own

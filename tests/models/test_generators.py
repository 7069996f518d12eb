"""The generator: what training draws, what sampling depends on, what is refused."""

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmsparsedit.models import generators
from mmsparsedit.models.cost import macs_by_grid, model_cost, trajectory_macs
from mmsparsedit.registry import MODELS


def config(**overrides):
    return {
        **dict(
            type='DiffusionGenerator',
            network=dict(
                type='SparseDiT',
                input_size=8,
                patch_size=1,
                in_channels=1,
                hidden_size=16,
                num_heads=2,
                num_classes=10,
                num_bottom=1,
                num_sdtm=1,
                num_top=1,
                sdtm=dict(type='SDTM', block_counts=(1, 1, 1, 0)),
            ),
            diffusion=dict(type='GaussianDiffusion'),
            sampler=dict(type='DDPMSampler', num_steps=5),
            prune=dict(type='TimestepPruneScheduler', r_min=0.61, r_max=0.86, token_grid=(8, 8)),
            cfg_scale=2.0,
        ),
        **overrides,
    }


def build(**overrides):
    torch.manual_seed(0)
    generator = MODELS.build(config(**overrides))
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return generator.eval()


class Recorder(nn.Module):
    """A network that notes what it is asked and answers zeros."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, []

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('inner'), name)

    def forward(self, x, t, y, grid=None):
        self.calls.append(dict(x=x, t=t, y=y, grid=grid))
        return self.inner(x, t, y, grid=grid)


def at(iteration, seed=5):
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', iteration)
    hub.update_info('seed', seed)


def trained(generator, iteration, inputs, label, monkeypatch=None, rank=0, world=1):
    """The network's inputs in a training iteration of one of ``world`` processes."""
    generator.network = Recorder(generator.network)
    if monkeypatch:
        monkeypatch.setattr(generators, 'get_dist_info', lambda: (rank, world))
    at(iteration)
    generator(inputs=inputs, label=label, mode='loss')
    call = generator.network.calls[-1]
    generator.network = generator.network.inner
    return call


def test_training_draws_depend_on_seed_and_iteration_only():
    generator = build()
    x, y = torch.rand(64, 1, 8, 8), torch.arange(64) % 10
    first = trained(generator, 3, x, y)
    torch.manual_seed(123)
    torch.rand(7)
    again = trained(build(), 3, x, y)
    assert torch.equal(first['x'], again['x']) and torch.equal(first['t'], again['t'])
    assert torch.equal(first['y'], again['y']) and first['grid'] == again['grid']
    assert not torch.equal(first['x'], trained(generator, 4, x, y)['x'])


def test_labels_are_dropped_at_their_rate():
    generator = build()
    y = torch.zeros(100, dtype=torch.long)
    dropped = sum(
        (trained(generator, i, torch.zeros(100, 1, 8, 8), y)['y'] == 10).sum().item()
        for i in range(40)
    )
    assert dropped / 4000 == pytest.approx(0.1, abs=4 * (0.09 / 4000) ** 0.5)


def test_timesteps_stay_in_the_stage_of_the_grid():
    generator = build()
    seen = set()
    for i in range(20):
        call = trained(generator, i, torch.zeros(8, 1, 8, 8), torch.zeros(8).long())
        assert {generator.prune.grid_at(t) for t in call['t'].tolist()} == {call['grid']}
        seen.add(call['grid'])
    assert seen == {stage.grid for stage in generator.prune.stages}


def test_two_processes_see_what_one_would(monkeypatch):
    """Samples are dealt in turn: rank r holds samples r, r + 2, ... of the global batch."""
    generator = build(prune=None, network=dict(config()['network'], num_sdtm=1))
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6)
    whole = trained(generator, 2, x, y)
    for rank in range(2):
        part = trained(generator, 2, x[rank::2], y[rank::2], monkeypatch, rank, 2)
        for key in ('x', 't', 'y'):
            assert torch.equal(part[key], whole[key][rank::2])


def test_moments_are_sampled_and_scaled():
    generator = build(scale_factor=0.5)
    mean, log_variance = torch.full((4000, 1, 8, 8), 3.0), torch.full((4000, 1, 8, 8), -2.0)
    draw = generators.batch_randomness(0, 0, torch.device('cpu'))
    latent = generator._clean_data(torch.cat([mean, log_variance], 1), draw)
    assert latent.mean().item() == pytest.approx(1.5, abs=1e-3)
    assert latent.std().item() == pytest.approx(0.5 * 2.718281828**-1, rel=5e-3)
    assert torch.equal(generator._clean_data(mean, draw), mean * 0.5)


def test_logged_terms_do_not_change_the_loss():
    generator = build()
    at(0)
    losses = generator(inputs=torch.rand(4, 1, 8, 8), label=torch.arange(4), mode='loss')
    total, _ = generator.parse_losses(losses)
    assert torch.equal(total, losses['loss'])
    torch.testing.assert_close(losses['loss'], losses['mse'] + losses['vb'])


def requests(seeds, labels):
    return dict(seed=torch.tensor(seeds), label=torch.tensor(labels), index=torch.tensor(seeds))


def test_an_image_depends_on_its_request_alone():
    generator = build()
    seeds, labels = list(range(16)), [s % 10 for s in range(16)]
    whole = {r.seed: r.image for r in generator.predict(**requests(seeds, labels))}
    pieces = {}
    for start in range(0, 16, 5):
        part = slice(start, start + 5)
        backwards = generator.predict(**requests(seeds[part][::-1], labels[part][::-1]))
        pieces.update({r.seed: r.image for r in backwards})
    for seed in seeds:
        difference = (whole[seed].int() - pieces[seed].int()).abs().max()
        # matrix products of another batch size may round otherwise: at most one grey level
        assert difference <= 1, seed
    assert len({image.numpy().tobytes() for image in whole.values()}) == 16


def test_each_step_reads_the_grid_of_its_original_timestep():
    generator = build(sampler=dict(type='DDPMSampler', num_steps=8))
    generator.network = Recorder(generator.network)
    generator.predict(**requests([0], [3]))
    calls = generator.network.calls
    assert [call['t'][0].item() for call in calls] == [999, 856, 714, 571, 428, 285, 143, 0]
    for call in calls:
        assert call['grid'] == generator.prune.grid_at(call['t'][0].item())
        assert call['y'].tolist() == [3, 10] and torch.equal(call['x'][:1], call['x'][1:])


def test_guidance_interval_halves_the_other_calls():
    generator = build(cfg_interval=(200, 700))
    generator.network = Recorder(generator.network)
    generator.predict(**requests([0], [3]))
    sizes = {int(c['t'][0]): len(c['x']) for c in generator.network.calls}
    assert sizes == {999: 1, 749: 1, 500: 2, 250: 2, 0: 1}


def test_uint8_is_truncated_not_rounded():
    generator = build()
    x = torch.tensor([-2.0, -1.0, -0.9961, 0.0, 0.0039, 0.9999, 1.0, 2.0]).view(1, 1, 2, 4)
    # 127.5 x + 128 cut off: -1 -> 0.5 -> 0, 1 -> 255.5 -> 255
    assert generator.decode(x).flatten().tolist() == [0, 0, 0, 128, 128, 255, 255, 255]


def test_uint8_by_adms_rule():
    x = torch.tensor([-1.0, -0.999, 0.0, 0.5, 0.999, 1.0]).view(1, 1, 2, 3)
    # (x + 1) 127.5 cut off
    assert build(uint8_rule='adm').decode(x).flatten().tolist() == [0, 0, 127, 191, 254, 255]
    with pytest.raises(ValueError, match="rule 'ADM' of 8 bits"):
        build(uint8_rule='ADM')


def test_autoencoder_stays_out_of_weights():
    @MODELS.register_module(name='DoublingAutoencoder', force=True)
    class DoublingAutoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def decode(self, z):
            return z * 2

    generator = build(autoencoder=dict(type='DoublingAutoencoder'), scale_factor=0.25)
    assert all(key.startswith('network.') for key in generator.state_dict())
    x = torch.full((1, 1, 1, 1), 0.1)
    assert generator.decode(x).item() == int(127.5 * 0.1 / 0.25 * 2 + 128)


@pytest.mark.parametrize(
    'overrides,message',
    [
        (dict(cfg_channels=2), 'cfg_channels 2 exceeds the 1'),
        (dict(cfg_channels=0), 'cfg_channels must be at least 1'),
        (dict(cfg_interval=(500, 100)), 'guidance interval'),
        (dict(diffusion=dict(type='GaussianDiffusion', learn_sigma=False)), 'learn_sigma'),
        (dict(diffusion=dict(type='RectifiedFlow')), 'learn_sigma'),
        (dict(sampler=dict(type='EulerSampler')), 'samples a RectifiedFlow'),
        (dict(sampler=dict(type='DDPMSampler', num_steps=0)), 'num_steps'),
        (dict(sampler=dict(type='DDPMSampler', num_steps=1001)), '1 to 1000'),
        (dict(sampler=dict(type='DDIMSampler', num_steps=25, eta=-0.5)), 'eta must be at least 0'),
        (dict(sampler=dict(type='DDIMSampler', num_steps=999)), 'nearest counts'),
        (
            dict(prune=dict(type='TimestepPruneScheduler', r_min=0.5, r_max=0.6)),
            'is not the token grid',
        ),
        (dict(network=dict(config()['network'], class_dropout_prob=0.0)), 'null condition'),
        (dict(network=dict(config()['network'], num_sdtm=0)), 'no SDTM'),
    ],
)
def test_parts_that_cannot_work_together_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**overrides))


def test_bad_batches_are_named():
    generator = build()
    with pytest.raises(ValueError, match='label 10 is out of range.*0 to 9'):
        generator.predict(**requests([0], [10]))
    with pytest.raises(ValueError, match=r'shape \(1, 8, 9\): expected \(1, 8, 8\)'):
        generator(inputs=torch.zeros(2, 1, 8, 9), label=torch.zeros(2).long(), mode='loss')
    with pytest.raises(ValueError, match='no autoencoder'):
        build(scale_factor=0.18215).decode(torch.zeros(1, 1, 8, 8))


def test_the_unconditional_half_has_grids_of_its_own():
    """Equal grids give guidance's samples; others run and are counted half by half."""
    request = dict(label=torch.tensor([3, 4]))
    plain = build()
    grids = [stage.grid for stage in plain.prune.stages]
    same = build(cfg_prune=dict(grids=grids)).sample([0, 1], **request)
    assert torch.allclose(same, plain.sample([0, 1], **request), atol=1e-5)

    cheap = build(cfg_prune=dict(grids=[(0, 0)]))
    cheap.network = Recorder(cheap.network)
    cheap.sample([0, 1], **request)
    called = [(call['grid'], call['y'].tolist()) for call in cheap.network.calls]
    assert called[1::2] == [((0, 0), [10, 10])] * 5 and {y[0] for _, y in called[::2]} == {3}
    cheap.network = cheap.network.inner
    one = macs_by_grid(cheap)
    halves = [one[cheap.prune.grid_at(t)] for t in cheap.sampler.timesteps(cheap.diffusion)]
    assert trajectory_macs(cheap, one) == sum(halves) + 5 * one[(0, 0)]
    assert model_cost(cheap)['sampler']['gmacs_per_sample'] == trajectory_macs(cheap, one) / 1e9


def test_a_grid_of_no_tokens_leaves_the_middle_out():
    generator = build()
    inputs = generator.network.example_inputs(2)
    tokens, c = generator.network.embed(**inputs)
    around = generator.network.run_top(generator.network.run_bottom(tokens, c), c)
    whole = generator.network(**inputs, grid=(0, 0))
    assert torch.equal(whole, generator.network.head(around, c))


def test_iterations_without_the_middle_are_unconditional():
    elastic = dict(config()['prune'], type='ElasticPruneScheduler', skip_middle=0.5)
    generator = build(prune=elastic)
    x, y = torch.zeros(32, 1, 8, 8), torch.zeros(32, dtype=torch.long)
    calls = [trained(generator, i, x, y) for i in range(12)]
    skipped = [call['y'].unique().tolist() for call in calls if call['grid'] == (0, 0)]
    assert skipped and all(labels == [10] for labels in skipped)
    assert any(0 in call['y'] for call in calls if call['grid'] != (0, 0))


@pytest.mark.parametrize(
    'given,message',
    [
        (dict(prune=None), 'set prune'),
        (dict(acceleration=dict(cache_interval=2)), 'gives them two'),
    ],
)
def test_what_separate_halves_cannot_do(given, message):
    with pytest.raises(ValueError, match=message):
        build(cfg_prune=dict(grids=[(2, 2)]), **given)

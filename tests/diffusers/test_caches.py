"""Caches of diffusers around whole blocks, across a change of stage."""

import itertools

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from diffusers.hooks import MagCacheConfig
from tiny_pipelines import dit_pipeline, randomised, sparse_dit

SHAPE = dict(num_bottom=2, num_sdtm=1, num_top=2)
TAYLOR = dict(cache_interval=3, taylor_factors_dtype=torch.float32)


def images(model, steps=8):
    draw = dict(num_inference_steps=steps, output_type='pt')
    return dit_pipeline(model)([3], generator=torch.manual_seed(5), **draw).images


@pytest.mark.parametrize(
    'config,computed',
    [
        (FirstBlockCacheConfig(threshold=0.06), 5),
        (MagCacheConfig(num_inference_steps=8, mag_ratios=[1.0] * 8, threshold=0.5), 3),
        (TaylorSeerCacheConfig(**TAYLOR, cache_identifiers=[r'blocks\.\d+']), 5),
        (TaylorSeerCacheConfig(**TAYLOR, use_lite_mode=True), 5),
    ],
    ids=['first block', 'magnitude', 'taylor', 'taylor lite'],
)
@torch.no_grad()
def test_a_cache_of_blocks_saves_calls_across_stages(config, computed):
    model = randomised(sparse_dit(**SHAPE), 0.03)  # smooth enough to reuse a step
    plain = images(model)
    calls, own = [], model.grid_at

    def grid_at(*given):
        calls.append(dict(grid=own(*given), computed=False))
        return calls[-1]['grid']

    model.grid_at = grid_at
    model.network.middle[0].register_forward_hook(lambda *_: calls[-1].update(computed=True))
    model.enable_cache(config)
    cached = images(model)
    assert len(calls) == 8 and len({call['grid'] for call in calls}) == 4
    assert sum(call['computed'] for call in calls) == computed
    # a step of one stage went on with what a step of another had computed
    assert any(
        not now['computed'] and now['grid'] != before['grid']
        for before, now in itertools.pairwise(calls)
    )
    assert 0 < (cached - plain).abs().mean() < 0.05 * plain.std()
    assert torch.equal(images(model), cached)  # nothing is left over from the last trajectory
    model.disable_cache()
    assert torch.equal(images(model), plain)


@torch.no_grad()
def test_a_cache_with_threshold_zero_changes_nothing():
    model = sparse_dit(**SHAPE)
    plain = images(model)
    model.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    assert torch.equal(images(model), plain)


@torch.no_grad()
def test_cache_dit_runs_the_blocks_in_its_own_loop():
    cache_dit = pytest.importorskip('cache_dit')
    model = randomised(sparse_dit(**SHAPE), 0.03)
    plain, computed = images(model), []
    model.network.middle[0].register_forward_hook(lambda *_: computed.append(1))
    pipe = dit_pipeline(model)
    draw = dict(num_inference_steps=8, output_type='pt')
    adapter = cache_dit.BlockAdapter(
        pipe=pipe,
        transformer=model,
        blocks=model.blocks,
        forward_pattern=cache_dit.ForwardPattern.Pattern_3,
    )
    options = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=2,
        residual_diff_threshold=0.06,
        num_inference_steps=8,
        enable_separate_cfg=False,
    )
    cache_dit.enable_cache(adapter, cache_config=options)
    cached = pipe([3], generator=torch.manual_seed(5), **draw).images
    assert len(computed) == 5
    assert 0 < (cached - plain).abs().mean() < 0.05 * plain.std()
    cache_dit.disable_cache(pipe)
    assert torch.equal(images(model), plain)


@torch.no_grad()
def test_a_context_inside_another_leaves_that_open():
    model = sparse_dit(**SHAPE)
    model.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([700]), torch.tensor([3])
    calls = []
    model.network.middle[0].register_forward_hook(lambda *_: calls.append(1))
    with model.cache_context('outer'):
        first = model(*inputs).sample
        with model.cache_context('inner'):
            model(*inputs)
        assert len(calls) == 2  # each context has a cache of its own
        assert torch.allclose(model(*inputs).sample, first, atol=1e-5)
        assert len(calls) == 2  # the outer one's again
    assert model._context is None


@pytest.mark.parametrize(
    'config',
    [
        TaylorSeerCacheConfig(),
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 0
        ),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_cache_that_matches_nothing_is_an_error(config):
    model = sparse_dit(**SHAPE)
    with pytest.raises(ValueError, match='matches no module'):
        model.enable_cache(config)
    assert not model.is_cache_enabled


def test_a_cache_that_only_skips_is_an_error():
    model = sparse_dit(**SHAPE)
    with pytest.raises(ValueError, match='made of zeros'):
        model.enable_cache(TaylorSeerCacheConfig(skip_predict_identifiers=[r'blocks\.\d+']))
    assert not model.is_cache_enabled

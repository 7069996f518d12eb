"""This package's FirstBlockCache and TaylorSeer beside those of diffusers."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerState
from tiny_pipelines import randomised, sparse_dit

from mmsparsedit.models.methods import FirstBlockCache, TaylorSeer
from mmsparsedit.models.methods.layer_cache import TaylorMemory

CALLS = 8


def as_it_is(key, function, static=True):
    return function


@pytest.mark.parametrize('threshold', [0.02, 0.05])
@torch.no_grad()
def test_first_block_cache_of_diffusers(threshold):
    model = randomised(sparse_dit(num_bottom=2, num_sdtm=1, num_top=2), 0.03)
    a, b = torch.randn(2, 1, 4, 16, 16, generator=torch.manual_seed(0))
    y = torch.tensor([3])
    # within one stage: diffusers goes on with what another stage has computed
    steps = [(a + (b - a) * i / CALLS, torch.tensor([20 - i])) for i in range(CALLS)]
    grid = model.grid_at(20)
    assert all(model.grid_at(20 - i) == grid for i in range(CALLS))
    method = FirstBlockCache(threshold)
    run = method.trajectory(method.parts(model.network), as_it_is, CALLS)
    ours = [run(x, t.float(), grid, dict(y=y)) for x, t in steps]

    computed = []
    handle = model.network.middle[0].register_forward_hook(lambda *_: computed.append(True))
    model.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    theirs, reused = [], []
    with model.cache_context('cond'):
        for x, t in steps:
            before = len(computed)
            theirs.append(model(x, t, y).sample)
            reused.append(len(computed) == before)
    handle.remove()
    assert method.made == [(1, reused)] and 0 < sum(reused) < CALLS - 1
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('order', [0, 1, 2, 3])
def test_forecasts_of_diffusers(order):
    values = torch.randn(12, 1, 5, generator=torch.manual_seed(0))
    planner, memory = TaylorSeer(3, order).planner(12), TaylorMemory(order)
    state = TaylorSeerState(torch.float32, order)
    for value in values:
        state.current_step += 1
        if planner.reuses('a'):
            torch.testing.assert_close(memory.recall(planner), state.predict()[0])
        else:
            memory.keep(value, planner)
            state.update((value,))

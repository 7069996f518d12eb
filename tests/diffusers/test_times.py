"""How often a call waits to know its timestep."""

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_pipelines import dit_pipeline, pixart_pipeline, prompts, sparse_dit, sparse_pixart
from torch.overrides import TorchFunctionMode

from mmsparsedit.diffusers import times

READS = {
    getattr(torch.Tensor, name)
    for name in ('tolist', 'item', 'cpu', 'numpy', '__bool__', '__int__', '__float__', 'nonzero')
}


class Reads(TorchFunctionMode):
    """Counts what would wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in READS
        return func(*args, **(kwargs or {}))


def counted(model):
    """Reads inside of the model's calls to come; the grids of these calls."""
    reads, grids, own, forward = Reads(), [], model.grid_at, model.forward

    def watched(*args, **kwargs):
        with reads:
            return forward(*args, **kwargs)

    def grid_at(*args):
        grids.append(own(*args))
        return grids[-1]

    model.forward, model.grid_at = watched, grid_at
    return reads, grids


@torch.no_grad()
def test_a_pipeline_reads_once_for_all_steps(monkeypatch):
    """With the CPU for the device that is waited for."""
    model = sparse_pixart()
    pipe = pixart_pipeline(model)
    reads, grids = counted(model)

    def draw(steps):
        options = dict(use_resolution_binning=False, output_type='latent')
        pipe(**prompts(), num_inference_steps=steps, **options)
        return [model.prune.grid_at(int(t)) for t in pipe.scheduler.timesteps]

    monkeypatch.setattr(times, 'waits', lambda tensor: True)
    first = draw(6)
    assert reads.count == 1 and grids == first and len(set(grids)) == 4
    second = draw(4)  # other timesteps, another read
    assert reads.count == 2 and grids == first + second
    monkeypatch.undo()
    draw(4)
    assert reads.count == 6  # on the CPU each is read: that costs nothing


@torch.no_grad()
def test_a_timestep_moved_by_itself_is_read(monkeypatch):
    """As DiTPipeline does: its timesteps are made on the CPU, and each is moved in its step."""
    monkeypatch.setattr(times, 'waits', lambda tensor: True)
    model = sparse_dit()
    model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | dict(timestep=kwargs['timestep'].clone())),
        with_kwargs=True,
    )
    reads, grids = counted(model)
    pipe = dit_pipeline(model)
    pipe([3], num_inference_steps=4)
    assert reads.count == 4
    assert grids == [model.prune.grid_at(int(t)) for t in pipe.scheduler.timesteps]


@pytest.mark.parametrize('inference', [False, True])
def test_a_loop_that_calls_twice_a_step(inference):
    model, labels = sparse_dit(), torch.tensor([3])
    reads, grids = counted(model)
    scheduler = DDIMScheduler()
    with torch.inference_mode(inference), torch.no_grad():
        scheduler.set_timesteps(4)
        model.plan(scheduler.timesteps)
        x = torch.randn(1, 4, 16, 16)
        for t in scheduler.timesteps:
            for _ in range(2):
                model(x, t, labels)
            model(x.expand(2, -1, -1, -1), t[None].expand(2), labels.expand(2))
        assert reads.count == 0
        assert grids == [model.prune.grid_at(int(t)) for t in scheduler.timesteps for _ in range(3)]
        # not of the plan: read
        model(x, torch.tensor([999]), labels)
        model(x, scheduler.timesteps[0] + 0, labels)
        assert reads.count == 2 and grids[-2:] == [(3, 3), model.prune.grid_at(750)]
        if not inference:
            scheduler.timesteps.sub_(249)  # written to: the plan holds no more
            model(x, scheduler.timesteps[0], labels)
            assert reads.count == 3 and grids[-1] == model.prune.grid_at(501)
            model.plan(None)
            with pytest.raises(ValueError, match='several stages'):
                model(x.expand(4, -1, -1, -1), scheduler.timesteps + 249, labels.expand(4))
            with pytest.raises(ValueError, match=r'expected \(n,\), contiguous'):
                model.plan(scheduler.timesteps[::2])

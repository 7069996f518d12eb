"""One sample on two devices: a process for each half of guidance."""

import pytest
import torch
import torch.distributed as dist
from diffusers import DDIMScheduler
from tiny_pipelines import sparse_dit

STEPS = 3


def halves_of_guidance(eps):
    """(conditioned, null) of processes 0 and 1, as the documents show it."""
    halves = [torch.empty_like(eps) for _ in range(2)]
    dist.all_gather(halves, eps.contiguous())
    return halves


def sampled(condition, halves):
    model, scheduler = sparse_dit(), DDIMScheduler()
    scheduler.set_timesteps(STEPS)
    model.plan(scheduler.timesteps)
    x = torch.randn(1, 4, 16, 16, generator=torch.manual_seed(0))
    with torch.no_grad():
        for t in scheduler.timesteps:
            eps, null = halves(model, x, t, condition)
            x = scheduler.step(null + 4.0 * (eps - null), t, x).prev_sample
    return x


def process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)

    def halves(model, x, t, label):
        return halves_of_guidance(model(x, t, label).sample[:, :4])

    torch.save(sampled(torch.tensor([(3, 1000)[rank]]), halves), f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow(12)
def test_each_process_computes_one_half(tmp_path):
    def both(model, x, t, _):
        return (model(x, t, torch.tensor([label])).sample[:, :4] for label in (3, 1000))

    wanted = sampled(None, both)
    torch.multiprocessing.spawn(process, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f'{rank}.pt'), wanted)

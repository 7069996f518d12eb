"""One sample on two devices: halves of guidance, and MLPs, each in a process."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from diffusers import DDIMScheduler
from tiny_pipelines import sparse_dit, sparse_latte
from torch.distributed.device_mesh import init_device_mesh

from mmsparsedit.diffusers.parallel import register_cache_dit, split_mlps

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


def in_two_processes(work, folder):
    """What ``work(rank)`` returns in each of two processes of one group.

    They are forked: diffusers is not imported again.
    """
    context = multiprocessing.get_context('fork')
    started = [context.Process(target=process, args=(work, rank, folder)) for rank in range(2)]
    for each in started:
        each.start()
    for each in started:
        each.join(60)
    assert [each.exitcode for each in started] == [0, 0]
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]


def process(work, rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)
    torch.save(work(rank), folder / f'{rank}.pt')
    dist.destroy_process_group()


def test_each_process_computes_one_half(tmp_path):
    def one(rank):
        def halves(model, x, t, label):
            return halves_of_guidance(model(x, t, label).sample[:, :4])

        return sampled(torch.tensor([(3, 1000)[rank]]), halves)

    def both(model, x, t, _):
        return (model(x, t, torch.tensor([label])).sample[:, :4] for label in (3, 1000))

    wanted = sampled(None, both)
    for result in in_two_processes(one, tmp_path):
        assert torch.equal(result, wanted)


def outputs(name, change):
    """At the grids of two stages."""
    model = sparse_dit() if name == 'dit' else sparse_latte()
    change(model)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, *((16, 16) if name == 'dit' else (4, 16, 16)), generator=draw)
    text = dict(encoder_hidden_states=torch.randn(1, 6, 8, generator=draw))
    given = dict(class_labels=torch.tensor([3])) if name == 'dit' else text
    with torch.no_grad():
        return torch.cat([model(x, timestep=t, **given).sample for t in (50, 900)]), [
            getattr(p, '_local_tensor', p).numel() for p in model.parameters()
        ]


@pytest.mark.parametrize('name', ['dit', 'latte'])
def test_mlps_are_split(name, tmp_path):
    wanted, whole = outputs(name, lambda model: None)

    def part(rank):
        return outputs(name, lambda model: split_mlps(model, init_device_mesh('cpu', (2,))))

    for result, kept in in_two_processes(part, tmp_path):
        assert (result - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert 0.6 < sum(kept) / sum(whole) < 0.9


def test_cache_dit_splits_them(tmp_path):
    cache_dit = pytest.importorskip('cache_dit')
    pytest.importorskip('einops')  # of cache-dit's parallelism
    wanted, _ = outputs('dit', lambda model: None)

    def part(rank):
        register_cache_dit()
        register_cache_dit()  # once is enough
        config = cache_dit.ParallelismConfig(tp_size=2)
        return outputs(
            'dit', lambda model: cache_dit.enable_cache(model, None, parallelism_config=config)
        )

    for result, _ in in_two_processes(part, tmp_path):
        assert (result - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_processes_that_do_not_divide_an_mlp_are_refused():
    class Mesh:
        def size(self):
            return 5

    with pytest.raises(ValueError, match='5 processes do not divide the width 96'):
        split_mlps(sparse_dit(), Mesh())

"""Averages, losses by timestep, pictures, samplers of data: numbers behind the hooks."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from mmsparsedit.datasets import SampleRequests, SeekableSampler
from mmsparsedit.engine import ForeachEMA, InvalidLossHook, LossByTimestepHook
from mmsparsedit.prune import TimestepPruneScheduler
from mmsparsedit.visualization import labelled_grid, read_request, save_image


def test_average_is_mmengines():
    from mmengine.model import ExponentialMovingAverage

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    ours, theirs = ForeachEMA(net, momentum=0.1), ExponentialMovingAverage(net, momentum=0.1)
    for _ in range(6):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ours.update_parameters(net)
        theirs.update_parameters(net)
    for a, b in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    resumed = ForeachEMA(net, momentum=0.1)
    resumed.load_state_dict(ours.state_dict())
    with torch.no_grad():
        net[0].weight.zero_()
    resumed.update_parameters(net)
    # a resumed average goes on; a fresh one would copy
    torch.testing.assert_close(
        resumed.module.get_parameter('0.weight'), 0.9 * ours.module.get_parameter('0.weight')
    )


def test_losses_by_timestep_are_means_over_their_samples():
    prune = TimestepPruneScheduler(0.44, 0.75, (8, 8))
    model = SimpleNamespace(
        diffusion=SimpleNamespace(num_train_timesteps=1000),
        prune=prune,
        parameters=lambda: iter([torch.zeros(1)]),
        last_errors=None,
    )
    logged = {}
    runner = SimpleNamespace(
        bare_model=model, message_hub=SimpleNamespace(update_scalar=logged.__setitem__)
    )
    hook = LossByTimestepHook(interval=2, num_bins=10)
    hook.before_train(runner)
    model.last_errors = (torch.tensor([0, 99, 100, 999]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    hook.after_train_iter(runner, 0)
    assert not logged
    model.last_errors = (torch.tensor([50.0, 250.0]), torch.tensor([8.0, 9.0]))
    hook.after_train_iter(runner, 1)
    assert logged == {
        'train/mse_t0': 4.0,
        'train/mse_t1': 5.0,
        'train/mse_t2': 9.0,
        'train/mse_t9': 7.0,
        'train/mse_stage0': 17 / 4,
        'train/mse_stage1': 9.0,
        'train/mse_stage3': 7.0,
    }


@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_a_loss_that_is_no_number_stops_the_run(loss):
    runner = SimpleNamespace(iter=99, max_iters=1000)
    hook = InvalidLossHook(interval=100)
    hook.after_train_iter(runner, 99, outputs=dict(loss=torch.tensor(1.0)))
    with pytest.raises(FloatingPointError, match='after iteration 100'):
        hook.after_train_iter(runner, 99, outputs=dict(loss=torch.tensor(loss)))


def test_an_image_carries_its_request(tmp_path):
    image = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    request = dict(seed=2**40, label=3, sampler=dict(type='DDIMSampler', num_steps=25))
    save_image(tmp_path / 'a' / 'x.png', image, request)
    assert read_request(tmp_path / 'a' / 'x.png') == request
    assert torch.equal(
        torch.tensor(list(Image.open(tmp_path / 'a' / 'x.png').tobytes())).view(4, 4, 3),
        image.permute(1, 2, 0).long(),
    )


def test_grid_enlarges_without_smoothing():
    images = [torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (10, 200, 90)]
    grid = labelled_grid(images, ['0', '1', '2'], columns=2, cell=64)
    assert grid.size == (2 * 68 + 4, 2 * 84 + 4)
    assert grid.getpixel((4 + 68 + 30, 4 + 16 + 30)) == (200, 200, 200)
    assert grid.getpixel((4 + 30, 4 + 84 + 16 + 30)) == (90, 90, 90)


def stream(size, count, rank=0, world=1, position=0, **options):
    sampler = SeekableSampler(range(size), seed=3, **options)
    sampler.rank, sampler.world = rank, world
    sampler.seek(position)
    order = iter(sampler)
    return [next(order) for _ in range(count)]


def test_each_sample_once_per_epoch_for_any_number_of_ranks():
    whole = stream(10, 40)
    for epoch in range(4):
        assert sorted(whole[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert whole[:10] != whole[10:20]
    for world in (2, 3, 4):
        dealt = [stream(10, 12, rank, world) for rank in range(world)]
        together = [dealt[i % world][i // world] for i in range(12 * world)]
        assert together == stream(10, 12 * world)


def test_seeking_is_reading_on():
    assert stream(1000, 50, 1, 3, position=70) == stream(1000, 120, 1, 3)[70:]
    # far into training: no replay
    assert len(stream(1_281_167, 4, 0, 8, position=400_000 * 32)) == 4


def test_requests_are_reproducible_and_not_sorted():
    first = SampleRequests(200, num_classes=10, seed=1)
    labels = [first[i]['label'] for i in range(200)]
    assert labels == [SampleRequests(200, 10, seed=1)[i]['label'] for i in range(200)]
    assert labels != sorted(labels) and set(labels) == set(range(10))
    assert len({first[i]['seed'] for i in range(200)}) == 200
    assert first[3]['seed'] != SampleRequests(200, 10, seed=2)[3]['seed']
    assert [SampleRequests(5, 10, labels=[7, 2])[i]['label'] for i in range(5)] == [7, 2, 7, 2, 7]
    assert 'label' not in SampleRequests(2)[0]
    with pytest.raises(ValueError, match='expected 0 to 9'):
        SampleRequests(2, 10, labels=[10])

"""What the hooks log, refuse, delay and draw."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import nn

from mmsparsedit.datasets.video_reader import open_video
from mmsparsedit.diffusion import DDIMSampler, GaussianDiffusion
from mmsparsedit.engine import (
    DelayedClipHook,
    InvalidLossHook,
    LossByTimestepHook,
    SampleGridHook,
    ThroughputHook,
)
from mmsparsedit.engine.hooks import sample_grid_hook, throughput_hook
from mmsparsedit.engine.sampling import fewer_steps
from mmsparsedit.evaluation import SampleStore
from mmsparsedit.prune import TimestepPruneScheduler


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
    stage = SimpleNamespace(index=2, t_start=500, t_end=750, grid=(8, 8))
    runner = SimpleNamespace(
        max_iters=1000,
        seed=0,
        optim_wrapper=None,
        hooks=[],
        bare_model=SimpleNamespace(training_stage=lambda seed, iteration: stage),
    )
    hook = InvalidLossHook(interval=100)
    told = r'after iteration 141, stage 2 \(t 500 to 749, grid 8x8\).*No checkpoint was saved yet'
    with pytest.raises(FloatingPointError, match=told):
        for runner.iter in range(300):
            value = loss if runner.iter in (140, 160) else 1.0
            hook.after_train_iter(runner, runner.iter, outputs=dict(loss=torch.tensor(value)))
    assert runner.iter == 199


class _Wrapper:
    def __init__(self, clip_grad) -> None:
        self.clip_grad_kwargs = clip_grad


class _Runner:
    def __init__(self, clip_grad) -> None:
        self.optim_wrapper, self.iter = _Wrapper(clip_grad), 0


def test_gradients_are_clipped_only_from_the_start_iteration():
    runner, hook = _Runner(dict(max_norm=0.1)), DelayedClipHook(start_iter=2)
    hook.before_train(runner)
    seen = []
    for runner.iter in range(4):
        hook.before_train_iter(runner, 0)
        seen.append(runner.optim_wrapper.clip_grad_kwargs)
    assert seen == [None, None, dict(max_norm=0.1), dict(max_norm=0.1)]
    with pytest.raises(ValueError, match='nothing to delay: set optim_wrapper.clip_grad'):
        hook.before_train(_Runner(None))


def test_hook_writes_videos_and_a_contact_sheet(tmp_path):
    hook = SampleGridHook(num_samples=2, show_dir=str(tmp_path / 'shown'))
    ramp = (40 * torch.arange(6, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(6, 1, 32, 32)
    results = [BaseDataElement(video=ramp, seed=7 + i, index=i, label=i) for i in range(3)]
    runner = SimpleNamespace(
        test_loop=SimpleNamespace(store=SampleStore(tmp_path / 'store', dict(test='hook')))
    )
    runner.test_loop.store.add([result.to_dict() for result in results])
    hook.after_test_iter(runner, 0, outputs=results)
    hook.after_test_epoch(runner)
    names = sorted(path.name for path in (tmp_path / 'shown').iterdir())
    assert names == [f'{i:06d}.{kind}' for i in range(3) for kind in ('gif', 'mp4')] + ['grid.png']
    assert len(open_video(tmp_path / 'shown' / '000002.mp4')) == 6
    with Image.open(tmp_path / 'shown' / 'grid.png') as sheet:
        assert sheet.height == 2 * (64 + 4)


class _Drawing(nn.Module):
    """A generator that notes its requests."""

    def __init__(self, num_classes) -> None:
        super().__init__()
        self.network = SimpleNamespace(num_classes=num_classes)

    def predict(self, seed, **request):
        self.asked = {key: list(map(int, value)) for key, value in request.items()}
        self.asked_in_training = self.training
        image = torch.zeros(1, 8, 8, dtype=torch.uint8)
        return [BaseDataElement(image=image, seed=int(s)) for s in seed]


@pytest.mark.parametrize(
    'classes,labels,expected',
    [(3, None, [0, 1, 2, 0]), (10, None, [0, 1, 2, 3]), (10, [7, 2], [7, 2, 7, 2]), (None,) * 3],
)
def test_grid_in_training_cycles_through_its_labels(tmp_path, classes, labels, expected):
    model = _Drawing(classes)
    runner = SimpleNamespace(
        model=model, bare_model=model, hooks=[], work_dir=tmp_path, iter=9, sharded=False,
        visualizer=SimpleNamespace(_vis_backends={}),
    )  # fmt: skip
    hook = SampleGridHook(interval=10, num_samples=4, labels=labels)
    hook.after_train_iter(runner, 9)
    assert model.asked.get('label') == expected
    assert model.training and not model.asked_in_training
    assert hook.last_picture == tmp_path / 'samples' / 'iter_10.png' and hook.last_picture.is_file()


def test_processes_share_the_grid_of_a_training(tmp_path, monkeypatch):
    """As many for each, since those of a sharded network run together; the surplus is dropped."""
    monkeypatch.setattr(sample_grid_hook, 'collect_results', lambda *results: None)
    asked = []
    for rank in range(3):
        monkeypatch.setattr(sample_grid_hook, 'get_dist_info', lambda rank=rank: (rank, 3))
        model = _Drawing(10)
        runner = SimpleNamespace(model=model, bare_model=model, hooks=[], iter=9)
        SampleGridHook(interval=10, num_samples=4).after_train_iter(runner, 9)
        asked.append(model.asked['index'])
    assert asked == [[0, 3], [1, 0], [2, 1]]


def test_fewer_steps_are_for_a_while_and_never_more():
    whole = DDIMSampler(num_steps=50, respacing='50')
    model = SimpleNamespace(sampler=whole, diffusion=GaussianDiffusion(num_timesteps=1000))
    config = dict(type='DDIMSampler', num_steps=50, respacing='50')
    runner = SimpleNamespace(
        bare_model=model, cfg=SimpleNamespace(model=SimpleNamespace(sampler=config))
    )
    for steps, used in ((5, 5), (50, 50), (100, 50), (None, 50)):
        with fewer_steps(runner, steps):
            assert len(model.sampler.timesteps(model.diffusion)) == used
        assert model.sampler is whole
    with pytest.raises(ValueError, match='got 0'), fewer_steps(runner, 0):
        raise AssertionError
    assert model.sampler is whole


def test_macs_of_a_second_are_those_of_the_grids_that_were_drawn(monkeypatch):
    """Counted when a window is full: a run that is over sooner traces no network."""
    counted, logged = [], {}
    macs = {(6, 6): 30, (4, 4): 20}
    monkeypatch.setattr(throughput_hook, 'training_macs', lambda model: counted.append(1) or macs)
    model = SimpleNamespace(training_grid=lambda seed, iteration: ((6, 6), (4, 4))[iteration == 2])
    runner = SimpleNamespace(
        bare_model=model, seed=0, message_hub=SimpleNamespace(update_scalar=logged.__setitem__)
    )
    hook = ThroughputHook(interval=3)
    hook.before_train(runner)
    monkeypatch.setattr(hook, '_elapsed', lambda: 2.0)
    for runner.iter in range(3):
        assert not counted
        hook.before_train_iter(runner, runner.iter)
        hook.after_train_iter(runner, runner.iter, dict(inputs=torch.zeros(5)))
    assert counted == [1]
    assert logged['train/images_per_second'] == 15 / 2
    assert logged['train/tmacs_per_second'] == pytest.approx((10 * 30 + 5 * 20) / 2 / 1e12)

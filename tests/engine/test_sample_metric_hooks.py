"""FIDHook and FVDHook in a training run: EMA weights, best checkpoint, undisturbed training."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel

from mmsparsedit.engine import DiffusionRunner, FIDHook
from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.registry import HOOKS

from eval_helpers import TinyExtractor, as_samples
from runs import NUMBERS

TARGET = 120


class Grey(BaseModel):
    """A generator of noisy grey images of a learned brightness; training passes the target by."""

    def __init__(self):
        super().__init__()
        self.grey = torch.nn.Parameter(torch.tensor(20.0))
        self.asked = []

    def forward(self, inputs, mode='loss', **unused):
        noise = torch.rand(()) * 1e-3
        return {'loss': -self.grey + 0 * inputs.sum() + noise}

    def val_step(self, data):
        assert not self.training
        self.asked.append((self.grey.item(), list(map(int, data['seed']))))
        torch.rand(3)  # a careless sampler that draws from the global generator
        samples = []
        for seed, index in zip(data['seed'], data['index'], strict=True):
            generator = torch.Generator().manual_seed(int(seed))
            noise = torch.randint(-20, 21, (3, 8, 8), generator=generator)
            image = (self.grey.round().int() + noise).clamp(0, 255).to(torch.uint8)
            samples.append({'image': image, 'index': int(index), 'seed': int(seed)})
        return samples


class Requests(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {'seed': 100 + index, 'index': index}


class Inputs(torch.utils.data.Dataset):
    def __len__(self):
        return 320  # of 40 iterations: MMEngine sleeps before it begins anew

    def __getitem__(self, index):
        return {'inputs': torch.zeros(1)}


def loader(dataset, shuffle):
    return {
        'dataset': dataset,
        'batch_size': 8,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': shuffle, 'round_up': False},
        'collate_fn': {'type': 'default_collate'},
    }


@pytest.fixture
def reference(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / 'reference.npz', TARGET + rng.integers(-20, 21, (40, 8, 8, 3)).astype('u1'))
    return tmp_path / 'reference.npz'


def train(folder, hooks, iterations=40, resume=None):
    model = Grey()
    average = EMAHook(ema_type='ExponentialMovingAverage', momentum=0.5)
    runner = DiffusionRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader(Inputs(), True),
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 5.0}},
        default_hooks={'logger': None, 'checkpoint': None, 'timer': None},
        custom_hooks=[average, *hooks],
        randomness={'seed': 0},
        experiment_name=f'metric_hooks{next(NUMBERS)}',
        resume=resume is not None,
        load_from=None if resume is None else str(resume),
        log_level='ERROR',
        default_scope='mmsparsedit',
    )
    runner.train()
    return runner, model


def fid_hook(reference, **changes):
    metric = {
        'reference': str(reference),
        'extractor': TinyExtractor(),
        'cache_dir': str(reference.parent / 'cache'),
        'device': 'cpu',
    }
    return FIDHook(
        **{'interval': 8, 'dataloader': loader(Requests(), False), 'metric': metric, **changes}
    )


def test_training_run(tmp_path, reference):
    history = []

    class Recorder(FIDHook):
        def evaluate(self, runner):
            found = super().evaluate(runner)
            history.append((runner.iter + 1, found['adm/fid'], runner.model.grey.item()))
            assert runner.model.training
            return found

    hook = fid_hook(reference)
    hook.__class__ = Recorder
    runner, model = train(tmp_path / 'run', [hook])
    assert [step for step, _, _ in history] == [8, 16, 24, 32, 40]

    # the EMA weights were asked, with every seed once
    raw, average, expected = 20.0, 20.0, {}
    for step in range(1, 41):
        raw += 5
        average = raw if step == 1 else 0.5 * average + 0.5 * raw
        expected[step] = (raw, average)
    asked = model.asked[::3]  # three batches per evaluation
    for (step, _, grey_after), (grey, _) in zip(history, asked, strict=True):
        assert grey_after == pytest.approx(expected[step][0])
        assert abs(grey - grey_after) > 1 and grey == pytest.approx(expected[step][1], abs=0.5)
    seeds = [seed for _, batch in model.asked[:3] for seed in batch]
    assert seeds == list(range(100, 120))

    # the numbers are those of the metric itself
    metric = ADMMetrics(
        reference, ['fid'], extractor=TinyExtractor(), cache_dir=tmp_path / 'cache', device='cpu'
    )
    probe = Grey().eval()
    probe.grey.data.fill_(asked[0][0])
    batch = {'seed': list(range(100, 120)), 'index': list(range(20))}
    assert Evaluator([metric]).metrics == [metric]
    metric.process(None, probe.val_step(batch))
    assert metric.evaluate(20)['adm/fid'] == pytest.approx(history[0][1], rel=1e-6)

    # only the best checkpoint is kept, with the EMA weights as its state
    best = min(history, key=lambda row: row[1])
    assert best[0] not in (8, 40)
    files = sorted(path.name for path in (tmp_path / 'run').glob('best_fid*'))
    assert files == [f'best_fid_iter_{best[0]}.pth']
    hub = runner.message_hub
    assert hub.get_info('best_fid') == best[1]
    assert hub.get_info('best_fid_checkpoint') == files[0]
    checkpoint = torch.load(tmp_path / 'run' / files[0], weights_only=True)
    step = [step for step, _, _ in history].index(best[0])
    assert checkpoint['state_dict']['grey'].item() == pytest.approx(asked[step][0])
    assert checkpoint['meta']['iter'] == best[0]
    assert hub.get_scalar('samples/adm/fid').current() == history[-1][1]


@pytest.mark.parametrize('at_end,expected', [(True, [8, 10]), (False, [8])])
def test_the_last_iteration_is_evaluated_too(tmp_path, reference, at_end, expected):
    runner, model = train(tmp_path / 'run', [fid_hook(reference, at_end=at_end)], 10)
    assert len(model.asked) == 3 * len(expected)
    assert runner.message_hub.get_info('best_fid_checkpoint') == f'best_fid_iter_{expected[-1]}.pth'


def test_a_resumed_run_goes_on_comparing(tmp_path, reference):
    """The value to beat comes from the checkpoint: nothing after the best one is better."""
    folder = tmp_path / 'run'
    runner, _ = train(folder, [fid_hook(reference)], 32)
    best = runner.message_hub.get_info('best_fid_checkpoint')
    hub = torch.load(folder / best, weights_only=True)['message_hub']['runtime_info']
    assert hub['best_fid_checkpoint'] == best
    shutil.copy(folder / best, tmp_path / 'from.pth')
    resumed, _ = train(folder, [fid_hook(reference)], 40, resume=tmp_path / 'from.pth')
    assert resumed.iter == 40
    assert resumed.message_hub.get_info('best_fid') == hub['best_fid']
    assert [path.name for path in folder.glob('best_fid*')] == [best]


def test_training_is_not_disturbed(tmp_path, reference):
    class Draws(Hook):
        """Notes what the global generator would give after each iteration."""

        priority = 'LOWEST'

        def __init__(self):
            self.seen = []

        def after_train_iter(self, runner, *args, **kwargs):
            state = torch.random.get_rng_state()
            self.seen.append(torch.rand(()).item())
            torch.random.set_rng_state(state)

    with_hook, without = Draws(), Draws()
    train(tmp_path / 'with', [with_hook, fid_hook(reference, interval=3, save_best=False)], 10)
    train(tmp_path / 'without', [without], 10)
    assert with_hook.seen == without.seen
    assert not list((tmp_path / 'with').glob('best*'))


def test_built_by_name_and_refusals(reference):
    given = {'interval': 5, 'dataloader': {}, 'metric': {'reference': 'x.npz'}}
    hook = HOOKS.build({'_scope_': 'mmsparsedit', 'type': 'FVDHook', **given})
    assert hook.metric == {'type': 'FVD', 'reference': 'x.npz'} and hook.indicator == 'fvd'
    with pytest.raises(ValueError, match='got interval 0'):
        fid_hook(reference, interval=0)


def test_missing_reference_stops_the_run_before_it_starts(tmp_path):
    hook = fid_hook(tmp_path / 'nothing.npz')
    with pytest.raises(FileNotFoundError, match='nothing.npz'):
        train(tmp_path / 'run', [hook])


def test_helpers_number_samples():
    assert [sample['index'] for sample in as_samples(np.zeros((2, 4, 4, 3), 'u1'))] == [0, 1]

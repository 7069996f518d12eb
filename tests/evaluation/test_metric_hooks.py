"""FIDHook and FVDHook in a training run: EMA weights, best checkpoint, undisturbed training."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmsparsedit.engine.hooks import FIDHook, SampleMetricHook
from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.registry import HOOKS

from eval_helpers import TinyExtractor, as_samples

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
        return 64

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


def train(folder, hooks, iterations=40, ema=True):
    model = Grey()
    averages = [EMAHook(ema_type='ExponentialMovingAverage', momentum=0.5)] if ema else []
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=loader(Inputs(), True),
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 5.0}},
        default_hooks={'logger': None, 'checkpoint': None, 'timer': None},
        custom_hooks=averages + hooks,
        randomness={'seed': 0},
        experiment_name=folder.name,
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
    checkpoint = torch.load(tmp_path / 'run' / files[0], weights_only=False)
    step = [step for step, _, _ in history].index(best[0])
    assert checkpoint['state_dict']['grey'].item() == pytest.approx(asked[step][0])
    assert checkpoint['meta']['iter'] == best[0]
    assert hub.get_scalar('samples/adm/fid').current() == history[-1][1]


def test_training_is_not_disturbed(tmp_path, reference):
    class Draws(SampleMetricHook):
        """Notes what the global generator would give after each iteration."""

        def __init__(self):
            self.seen = []

        def before_train(self, runner):
            pass

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

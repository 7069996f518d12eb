"""The data loader benchmark: what it counts, against a loader of known behaviour."""

import importlib.util
import json
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clock:
    """Time that passes only when something sleeps."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class SlowLoader:
    """Epochs of three batches of four samples, half a second each."""

    def __init__(self, clock):
        self.clock = clock

    def __iter__(self):
        for _ in range(3):
            self.clock.sleep(0.5)
            yield {'inputs': [0] * 4}


@pytest.mark.parametrize('step, speed, share', [(0.0, 8.0, 1.0), (1.5, 2.0, 0.25)])
def test_speed_and_waiting_of_a_known_loader(monkeypatch, step, speed, share):
    tool = load(TOOLS / 'misc' / 'benchmark_loader.py')
    clock = Clock()
    monkeypatch.setattr(time, 'perf_counter', clock.perf_counter)
    monkeypatch.setattr(time, 'sleep', clock.sleep)
    got = tool.measure(SlowLoader(clock), 10, step)  # more than three epochs
    assert got['samples_per_s'] == pytest.approx(speed)
    assert got['waiting_share'] == pytest.approx(share)
    assert got['first_batch_s'] == pytest.approx(0.5)


def test_command_on_latents(tmp_path, capsys):
    toy = load(TOOLS / 'dataset_converters' / 'make_toy_latents.py')
    toy.main(['--random', '40', '--latent-size', '8', '--out', str(tmp_path / 'toy')])
    config = tmp_path / 'config.py'
    config.write_text(f"""
train_dataloader = dict(
    batch_size=16, num_workers=2, persistent_workers=True, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='LatentDataset', data_root={str(tmp_path / 'toy')!r}))
""")
    tool = load(TOOLS / 'misc' / 'benchmark_loader.py')
    options = ['--batches', '7', '--step-ms', '1', '--num-workers', '0']
    assert tool.main([str(config), *options, '--json', str(tmp_path / 'out.json')]) == 0
    assert 'LatentDataset of 80 items, batch 16, 0 workers' in capsys.readouterr().out
    plain, paced = json.loads((tmp_path / 'out.json').read_text())
    assert (plain['step_ms'], paced['step_ms']) == (0, 1)
    assert 0 <= paced['waiting_share'] <= 1 and paced['samples_per_s'] < 16000
    config.write_text('x = 1\n')
    with pytest.raises(ValueError, match='has no train_dataloader'):
        tool.main([str(config)])

"""Runs that stop and go on: the same weights, the same loss curve, plain files."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmsparsedit.engine.plain_checkpoint import plain

import processes
from runs import ROOT, SPARSE, TINY, run_tool, tool, train


def curve(work_dir):
    """{iteration: loss} of all logs of a work dir."""
    losses = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                losses[row['step']] = row['loss']
    return losses


def same(a, b, where=''):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f'{where}[{i}]')
    else:
        assert a == b, where


OPTIONS = ('default_hooks.checkpoint.interval=6', 'default_hooks.logger.interval=1',
           'default_hooks.runtime_info.interval=1', 'log_processor.window_size=1')  # fmt: skip


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    train(folder, 12, *OPTIONS)
    return folder


def test_a_resumed_run_is_the_uninterrupted_one(uninterrupted, tmp_path):
    train(tmp_path, 12, *OPTIONS, resume=uninterrupted / 'iter_6.pth')
    whole, resumed = (
        torch.load(folder / 'iter_12.pth', weights_only=True)
        for folder in (uninterrupted, tmp_path)
    )
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        same(whole[part], resumed[part], part)
    expected = {step: loss for step, loss in curve(uninterrupted).items() if step > 6}
    assert curve(tmp_path) == expected and len(expected) == 6


def test_checkpoints_hold_plain_containers_only(uninterrupted):
    checkpoint = torch.load(uninterrupted / 'iter_12.pth', weights_only=True)
    assert {'meta', 'state_dict', 'ema_state_dict', 'optimizer', 'message_hub'} <= set(checkpoint)
    assert checkpoint['meta']['iter'] == 12
    assert (uninterrupted / 'last_checkpoint').read_text().endswith('iter_12.pth')

    def kinds(value):
        yield type(value)
        if isinstance(value, dict):
            for inner in value.values():
                yield from kinds(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from kinds(inner)

    allowed = {dict, list, str, int, float, bool, type(None), torch.Tensor}
    assert set(kinds(checkpoint)) <= allowed


def test_the_averaged_weights_are_what_loads(uninterrupted):
    from mmsparsedit.apis import init_model

    checkpoint = torch.load(uninterrupted / 'iter_12.pth', weights_only=True)
    assert not torch.equal(
        checkpoint['state_dict']['network.final_layer.linear.weight'],
        checkpoint['ema_state_dict']['module.network.final_layer.linear.weight'],
    )
    config = next(Path(uninterrupted).glob('*.py'))
    generator = init_model(config, uninterrupted / 'iter_12.pth')
    for key, value in generator.state_dict().items():
        assert torch.equal(value, checkpoint['state_dict'][key])


def test_what_is_no_plain_container_is_named():
    with pytest.raises(TypeError, match=r"checkpoint\['a'\]\[1\] is a PosixPath"):
        plain({'a': [1, Path('.')]})


@pytest.mark.slow(8)
def test_sigterm_saves_and_resume_finishes_the_same(tmp_path):
    options = [
        *TINY, 'train_cfg.max_iters=60', 'default_hooks.checkpoint.interval=1000',
        'default_hooks.logger.interval=5',
    ]  # fmt: skip
    whole, halved = tmp_path / 'whole', tmp_path / 'halved'

    def command(work_dir, *more):
        return (
            'tools/train.py', SPARSE, '--work-dir', work_dir, *more, '--cfg-options', *options
        )  # fmt: skip

    assert run_tool(*command(whole)).returncode == 0
    process = processes.Popen(
        **tool(*command(halved)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    logs = 'vis_data/scalars.json'  # told to stop while it runs, after its first line there
    while process.poll() is None and not any(p.stat().st_size for p in halved.glob(f'*/{logs}')):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait(60) == 128 + signal.SIGTERM, output
    saved = Path((halved / 'last_checkpoint').read_text())
    stopped_at = torch.load(saved, weights_only=True)['meta']['iter']
    assert 0 < stopped_at < 60 and f'after iteration {stopped_at} of 60' in output

    finished = run_tool(*command(halved, '--resume'))
    assert finished.returncode == 0, finished.stderr
    results = [torch.load(f / 'iter_60.pth', weights_only=True) for f in (whole, halved)]
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        same(results[0][part], results[1][part], part)


@pytest.mark.slow(18)
def test_two_processes_on_the_cpu_train_like_one(tmp_path):
    """Dense, the same global batch: the loss curve agrees within the rounding of float32."""
    options = ['train_cfg.max_iters=8', *OPTIONS]
    train(tmp_path / 'one', 8, *OPTIONS, config='configs/sparsedit/dit_digits.py')
    done = subprocess.run(
        ['bash', 'tools/dist_train.sh', 'configs/sparsedit/dit_digits.py', '2',
         '--work-dir', str(tmp_path / 'two'), '--cfg-options', *TINY, *options,
         'train_dataloader.batch_size=8'],
        cwd=ROOT, env=tool(env=dict(PORT='29617'))['env'], capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = curve(tmp_path / 'one'), curve(tmp_path / 'two')
    assert one.keys() == two.keys() and len(one) == 8
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, rel=1e-4), step


def test_resuming_from_bare_weights_is_refused(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'top.0.mlp.fc1.bias': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='cannot be resumed from: it lacks'):
        train(tmp_path / 'run', 2, resume=path)

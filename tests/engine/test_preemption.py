"""SIGTERM to everything that belongs to a training: it saves, says so by 143, and goes on alike."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from survival import difference

import processes
from runs import ROOT, SPARSE, TINY, run_tool, tool

ITERATIONS = 60
LEADS = 'import os, runpy, sys; os.setsid(); del sys.argv[0]; runpy.run_path(sys.argv[0], run_name="__main__")'  # noqa: E501


def options(workers, iterations=ITERATIONS):
    return [
        *TINY, f'train_cfg.max_iters={iterations}', 'default_hooks.checkpoint.interval=1000',
        'default_hooks.logger.interval=5', f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}', 'default_hooks.preemption.interval=5',
    ]  # fmt: skip


def until_it_trains(process, folder):
    while process.poll() is None:
        if any(p.stat().st_size for p in folder.glob('*/vis_data/scalars.json')):
            return
        time.sleep(0.02)


def children(pid):
    """All processes below one."""
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*'):
        for child in (task / 'children').read_text().split():
            found += [int(child), *children(int(child))]
    return found


def check_saved(folder, output):
    saved = Path((folder / 'last_checkpoint').read_text())
    at = torch.load(saved, weights_only=True)['meta']['iter']
    assert 0 < at < ITERATIONS and f'after iteration {at} of {ITERATIONS}' in output, output


def check_equal(whole, stopped):
    ends = [
        torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=True)
        for folder in (whole, stopped)
    ]
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert difference(ends[0][part], ends[1][part], part) is None


@pytest.mark.slow(12)
@pytest.mark.parametrize('workers', [2, 4])
def test_a_group_with_workers_saves(tmp_path, workers):
    folders = whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    commands = [
        ['tools/train.py', SPARSE, '--work-dir', f, '--cfg-options', *options(workers)]
        for f in folders
    ]
    assert run_tool(*commands[0]).returncode == 0
    process = processes.Popen(
        **tool('-c', LEADS, *commands[1]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until_it_trains(process, stopped)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait(60) == 143, output
    assert 'Traceback' not in output
    check_saved(stopped, output)
    resumed = run_tool(*commands[1][:4], '--resume', *commands[1][4:])
    assert resumed.returncode == 0, resumed.stderr
    check_equal(whole, stopped)


@pytest.mark.slow(10)
def test_a_dead_worker_costs_nothing(tmp_path):
    folders = whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    commands = [
        ['tools/train.py', SPARSE, '--work-dir', f, '--cfg-options', *options(2)] for f in folders
    ]
    assert run_tool(*commands[0]).returncode == 0
    process = processes.Popen(
        **tool('-c', LEADS, *commands[1]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    until_it_trains(process, stopped)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output = process.stdout.read()
    assert process.wait(60) not in (0, 143) and 'no batch came: saved' in output
    check_saved(stopped, output)
    resumed = run_tool(*commands[1][:4], '--resume', *commands[1][4:])
    assert resumed.returncode == 0, resumed.stderr
    check_equal(whole, stopped)


@pytest.mark.slow(45)
@pytest.mark.parametrize('told', ['launcher', 'everything'])
def test_torchrun_says_143(tmp_path, told):
    """The launcher alone, as a shell would; or, as Slurm does, every process of the step."""
    stopped = tmp_path / 'stopped'
    port = dict(launcher='29641', everything='29643')[told]
    command = [
        'bash', 'tools/dist_train.sh', SPARSE, '2', '--work-dir', str(stopped), '--cfg-options',
        *options(2),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=tool(env=dict(PORT=port))['env'], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    until_it_trains(process, stopped)
    below = children(process.pid)
    os.killpg(process.pid, signal.SIGTERM)
    for pid in below if told == 'everything' else ():
        os.kill(pid, signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 143, output
    check_saved(stopped, output)
    assert not re.search('Traceback', output), output
    if told == 'everything':
        return
    whole = tmp_path / 'whole'
    for folder, more in ((whole, []), (stopped, ['--resume'])):
        codes, logs = run_ranks(
            'tools/train.py', SPARSE, '--work-dir', folder, '--launcher', 'pytorch', *more,
            '--cfg-options', *options(2), folder=tmp_path,
        )  # fmt: skip
        assert codes == [0, 0], logs
    check_equal(whole, stopped)


@pytest.mark.slow(20)
def test_ranks_end_with_their_launcher(tmp_path):
    command = [
        'bash', 'tools/dist_train.sh', SPARSE, '2', '--work-dir', str(tmp_path), '--cfg-options',
        *options(0, 100_000),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=tool(env=dict(PORT='29645'))['env'], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until_it_trains(process, tmp_path)
    below = children(process.pid)
    assert len(below) >= 2
    process.kill()
    process.wait(60)
    waited = time.monotonic()
    while any(Path(f'/proc/{pid}').exists() for pid in below):
        assert time.monotonic() - waited < 60, 'they live on'
        time.sleep(0.1)
    assert list(tmp_path.glob('iter_*.pth'))


@pytest.mark.slow(15)
def test_a_process_that_does_not_answer_is_named(tmp_path):
    command = [
        'bash', 'tools/dist_train.sh', SPARSE, '2', '--work-dir', str(tmp_path), '--cfg-options',
        *options(0, 100_000), 'env_cfg.dist_cfg.timeout=5',
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=tool(env=dict(PORT='29647', MMSPARSEDIT_GRACE='1'))['env'],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until_it_trains(process, tmp_path)
    ranks = {
        Path(f'/proc/{pid}/environ').read_bytes().split(b'\0RANK=')[1][:1]: pid
        for pid in children(process.pid)
        if b'\0RANK=' in Path(f'/proc/{pid}/environ').read_bytes()
    }
    os.kill(ranks[b'1'], signal.SIGSTOP)
    output = process.communicate(timeout=120)[0]
    assert process.returncode not in (0, 143)
    assert re.search(r'rank 0 lost the other processes at iteration \d+', output), output
    assert re.search(r'Rank 1 was last heard of at iteration \d+', output), output

"""Kills trainings and looks at what is left: ``python tests/survival.py --kills 50 [--world 2]``.

Each training of handwritten digits is killed again and again by SIGKILL, at a random moment, amid
the writing of a checkpoint, or between a checkpoint and the pointer to it, and resumed until it
ends. After each kill the work dir must hold a sound checkpoint if one was ever whole, and in the
end weights, averages and optimizer are compared with an uninterrupted run's byte for byte.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from ranks import meeting_place

from mmsparsedit.engine.checkpoint_files import find_sound_checkpoint

import processes
from runs import SPARSE, TINY, tool

ITERATIONS, INTERVAL = 40, 4
MODES = ('random', 'amid a write', 'before the pointer')

# dies by itself at the n-th checkpoint of this process; argv: mode, n, then the command
DYING = """
import io, os, runpy, sys
import torch
from mmsparsedit.engine.hooks import checkpoint_hook
sys.path.insert(0, 'tests')
from runs import remember_formatting

remember_formatting()  # of the config's text: two thirds of such a training

mode, left = sys.argv[1], int(sys.argv[2])
save, point_to = torch.save, checkpoint_hook.point_to

def due(wanted):
    global left
    left -= mode == wanted
    return mode == wanted and left <= 0

def half_saved(content, file):
    if due('amid a write'):
        whole = io.BytesIO()
        save(content, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.kill(os.getpid(), 9)
    save(content, file)

def unsaid(*args):
    if due('before the pointer'):
        os.kill(os.getpid(), 9)
    point_to(*args)

torch.save, checkpoint_hook.point_to = half_saved, unsaid
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def command(folder, keep, world, resume):
    launcher = ['--launcher', 'pytorch'] if world > 1 else []
    options = [
        *TINY, f'train_cfg.max_iters={ITERATIONS}', 'default_hooks.logger.interval=1',
        f'default_hooks.checkpoint.interval={INTERVAL}',
        f'default_hooks.checkpoint.max_keep_ckpts={keep}',
    ]  # fmt: skip
    more = ['--resume'] if resume else []
    return ['tools/train.py', SPARSE, '--work-dir', folder, *launcher, *more,
            '--cfg-options', *options]  # fmt: skip


def start(folder, mode, at, keep, world, resume):
    """The processes of a training, and the file of their messages."""
    log = open(Path(folder).with_suffix('.txt'), 'a')
    places = [{}]
    if world > 1:
        address = meeting_place()
        places = [
            dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), **address)
            for rank in range(world)
        ]
    arguments = ['-c', DYING, mode, at, *command(folder, keep, world, resume)]
    return [
        processes.Popen(**tool(*arguments, env=place), stdout=log, stderr=subprocess.STDOUT)
        for place in places
    ]


def finish(ranks, mode, delay, folder):
    """Wait for the end of a training or kill it; whether it was killed."""
    started = time.monotonic()
    training = None  # since when it has been iterating: before that there is little to lose
    known = len(list(Path(folder).glob('*/vis_data/scalars.json')))
    while all(rank.poll() is None for rank in ranks):
        if training is None:
            logs = list(Path(folder).glob('*/vis_data/scalars.json'))
            if len(logs) > known and max(logs).stat().st_size:
                training = time.monotonic()
        if mode == 'random' and training and time.monotonic() - training > delay:
            random.choice(ranks).kill()
        if time.monotonic() - started > 600:
            raise TimeoutError(f'{folder} does not end')
        time.sleep(0.02 if training is None else 0.002)
    killed = any(rank.poll() == -signal.SIGKILL for rank in ranks)
    for rank in ranks:  # of a killed one, the others are the launcher's to end
        if killed:
            rank.kill()
        rank.wait(60)
    if not killed and any(rank.returncode for rank in ranks):
        raise RuntimeError(f'{folder} ended with {[r.returncode for r in ranks]}')
    return killed


def difference(a, b, where=''):
    """Where two contents differ first; None if they are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return None if a.dtype == b.dtype and torch.equal(a, b) else where
    if isinstance(a, dict | list):
        pairs = a.items() if isinstance(a, dict) else enumerate(a)
        if len(a) != len(b):
            return where
        found = (difference(inner, b[key], f'{where}[{key!r}]') for key, inner in pairs)
        return next((place for place in found if place), None)
    return None if a == b else where


def attack(folder, kills, world=1, seed=0):
    """Kill trainings ``kills`` times; how often in each way, and how many trainings ended equal.

    Raises:
        AssertionError: something was lost.
    """
    random.seed(seed)
    folder = Path(folder)
    assert not finish(start(folder / 'whole', 'none', 0, 3, world, False), 'none', 0, folder)
    last = f'iter_{ITERATIONS}.pth'
    whole = torch.load(folder / 'whole' / last, weights_only=True)
    done, equal = Counter(), 0
    while done.total() < kills:
        keep = 1 + equal % 2
        run = folder / f'run{equal}_keep{keep}'
        resume = killed = True
        while killed:
            wanted = MODES[done.total() % len(MODES)] if done.total() < kills else 'none'
            saved = {path.name for path in run.glob('iter_*.pth')}
            ranks = start(run, wanted, random.randint(1, 3), keep, world, resume and bool(saved))
            killed = finish(ranks, wanted, random.uniform(0, 0.6), run)
            done[wanted] += killed
            found = find_sound_checkpoint(run)
            assert not found.passed_over, found
            assert found.path is not None or not saved, f'{run} had {saved}, and nothing is sound'
            kept = list(run.glob('iter_*.pth'))
            assert len(kept) <= keep + 1, kept
        ended = torch.load(run / last, weights_only=True)
        for part in ('state_dict', 'ema_state_dict', 'optimizer'):
            assert difference(whole[part], ended[part], part) is None
        assert len(list(run.glob('iter_*.pth'))) == keep and not list(run.glob('.*.part'))
        assert (run / 'last_checkpoint').read_text() == str(run / last)
        equal += 1
    return done, equal


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--world', type=int, default=1, help='processes of a training')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done, equal = attack(folder, args.kills, args.world, args.seed)
    print(f'{done.total()} kills ({dict(done)}), {equal} trainings, all equal to the bit')


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    main()

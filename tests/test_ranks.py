"""Ranks start again where a thread of gloo spins, and in no other case."""

import re
import sys

import pytest
from ranks import run_ranks

STARTED = """
import os, pathlib, signal, threading, time
import torch, torch.distributed as dist
dist.init_process_group('gloo')
begun = pathlib.Path(FOLDER, f'begun{dist.get_rank()}')
again = begun.exists()
begun.touch()
dist.barrier()

def spin():
    comm = f'/proc/self/task/{threading.get_native_id()}/comm'
    pathlib.Path(comm).write_text('pt_gloo_runloop')
    while True:
        pass

if dist.get_rank() == 1 and not again:
    THEN
dist.barrier()
total = torch.ones(1)
dist.all_reduce(total)
print(int(total))
"""
pytestmark = [
    pytest.mark.slow(10),
    pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc'),
]


def run(folder, then):
    folder.mkdir()
    code = STARTED.replace('FOLDER', repr(str(folder))).replace('THEN', then)
    return run_ranks('-c', code, folder=folder, seconds=10)


def test_ranks_of_a_gloo_that_spins_start_again(tmp_path):
    with pytest.warns(UserWarning, match=r'(?s)gloo spins, ranks start again.*in spin\n'):
        codes, printed = run(tmp_path / 'spins', 'spin()')
    assert (codes, printed) == ([0, 0], ['2\n', '2\n'])


@pytest.mark.filterwarnings('error:a thread of gloo')
@pytest.mark.parametrize(
    ('then', 'codes', 'said'),
    [
        ('time.sleep(100)', [-6, -6], 'in barrier'),  # the other waits for it
        ('os.kill(os.getpid(), signal.SIGSEGV)', [1, -11], 'Segmentation fault'),
        ('raise SystemExit(3)', [1, 3], 'Connection closed by peer'),
    ],
    ids=['waits', 'dies', 'fails'],
)
def test_no_others_do(tmp_path, then, codes, said):
    ended, printed = run(tmp_path / 'others', then)
    assert ended == codes and re.search(said, ''.join(printed))
    assert not any('2\n' == text for text in printed)

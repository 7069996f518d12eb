"""Commands as the ranks of a group of gloo processes, which a test waits for."""

import os
import signal
import time
import warnings
from pathlib import Path

import processes
from runs import tool

STORES = []  # kept until the tests end


def run_ranks(*arguments, folder, world=2, seconds=200):
    """A command as the ranks of one gloo group: their exit codes and what they printed.

    Ranks that do not end print where each thread is and abort. They are started again, once and
    with a warning, only where a thread of gloo spins meanwhile: those of torch 2.14 can do so for
    ever in the destructor of a buffer, when their collective is over. Whoever waits for a
    collective that another rank does not call is asleep.
    """
    codes, texts, spun = start_ranks(*arguments, folder=folder, world=world, seconds=seconds)
    if spun:
        told = 'a thread of gloo spins, ranks start again:\n'
        warnings.warn(told + '\n'.join(texts), stacklevel=2)
        codes, texts, _ = start_ranks(*arguments, folder=folder, world=world, seconds=seconds)
    return codes, texts


def start_ranks(*arguments, folder, world, seconds):
    address = meeting_place()
    logs = [Path(folder) / f'rank{rank}.txt' for rank in range(world)]
    ranks, spun = [], False
    for rank, log in enumerate(logs):
        place = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), **address)
        with open(log, 'w') as file:
            command = tool(*arguments, env=place)
            ranks.append(processes.Popen(**command, stdout=file, stderr=processes.STDOUT))
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and any(rank.poll() is None for rank in ranks):
            time.sleep(0.05)
        late = [rank for rank in ranks if rank.poll() is None]
        spun = any(gloo_spins(rank.pid) for rank in late)
        for rank in late:
            rank.send_signal(signal.SIGABRT)
        codes = [rank.wait(30) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return codes, [log.read_text() for log in logs], spun


def gloo_spins(pid):
    """Whether threads that execute collectives run, for a fifth of two seconds; seen on Linux."""

    def spent():
        ticks = 0
        for task in Path(f'/proc/{pid}/task').glob('*'):
            if (task / 'comm').read_text().strip() == 'pt_gloo_runloop':
                ticks += sum(
                    map(int, (task / 'stat').read_text().rpartition(')')[2].split()[11:13])
                )
        return ticks / os.sysconf('SC_CLK_TCK')

    before = spent()
    time.sleep(2)
    return spent() - before > 0.4


def meeting_place():
    """Variables for the ranks of a group, which meet at a store of this process (``torchrun``).

    So no port is chosen that another process could take before rank 0 does.
    """
    from torch.distributed import TCPStore

    STORES.append(TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False))
    return dict(
        MASTER_ADDR='127.0.0.1', MASTER_PORT=str(STORES[-1].port),
        TORCHELASTIC_USE_AGENT_STORE='True', TORCHELASTIC_RESTART_COUNT='0',
    )  # fmt: skip

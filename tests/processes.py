"""Python processes that start with torch and MMEngine loaded: 0.4 instead of 6 CPU seconds.

``Popen`` and ``run`` are those of ``subprocess`` for commands of this Python: ``script.py ...``,
``-c code ...`` or ``-m module ...``. Each command is a process of its own, with its own exit code,
signals, folder and environment, forked by ``multiprocessing`` from a server that imported the
libraries and did nothing else. The package itself is not loaded beforehand: what a tool forgets to
import is still missing. What a test wants to know of the start itself is for ``subprocess``.
"""

import atexit
import faulthandler
import functools
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess, TimeoutExpired

LIBRARIES = (
    'torch', 'torch.utils.tensorboard', 'torchvision', 'mmcv', 'mmengine.runner', 'fvcore.nn',
    'matplotlib.pyplot', 'scipy.linalg', 'scipy.stats', 'sklearn.datasets', 'sklearn.metrics',
    'sklearn.neural_network',
)  # fmt: skip


class Popen:
    """A command that runs beside the test; its streams are pipes, open files, or the tests' own."""

    def __init__(self, args, *, cwd=None, env=None, stdout=None, stderr=None, text=False):
        program, *rest = map(str, args)
        if program != sys.executable or (PIPE in (stdout, stderr) and not text):
            raise ValueError(f'expected {sys.executable} ..., pipes with text=True, got {args}')
        self.args = args
        self.returncode = None
        self.stdout, out = _stream(stdout)
        self.stderr, err = (None, out) if stderr == STDOUT else _stream(stderr)
        environment = dict(os.environ if env is None else env)
        self._process = server().Process(
            target=_run_command,
            args=(rest, _plain_path(), str(cwd or os.getcwd()), environment, out, err),
        )
        self._process.start()
        self.pid = self._process.pid
        for end in {out, err} - {None}:
            end.close()

    def poll(self):
        self._process.join(0)
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """(stdout, stderr) when the command is over."""
        found = {}

        def read(name, stream):
            found[name] = stream.read()

        streams = dict(stdout=self.stdout, stderr=self.stderr)
        readers = [
            threading.Thread(target=read, args=item, daemon=True)
            for item in streams.items()
            if item[1] is not None
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return found.get('stdout'), found.get('stderr')

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


def run(args, *, timeout=None, capture_output=False, **kwargs):
    """``subprocess.run`` of a command of this Python."""
    if capture_output:
        kwargs.update(stdout=PIPE, stderr=PIPE)
    process = Popen(args, **kwargs)
    try:
        stdout, stderr = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    return CompletedProcess(args, process.returncode, stdout, stderr)


def server():
    """The context whose processes are forked from this test process's server, now started."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(LIBRARIES))
    forkserver.ensure_running()
    return context


@functools.cache
def _plain_path():
    """``sys.path`` of this Python without script and ``PYTHONPATH``."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    command = [sys.executable, '-c', 'import json, sys; print(json.dumps(sys.path[1:]))']
    return json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)


def _stream(wanted):
    """(end to read as text, end to write)."""
    if wanted is None:
        return None, None
    if wanted != PIPE:
        return None, Connection(os.dup(wanted.fileno()), readable=False)
    reading, writing = os.pipe()
    return open(reading), Connection(writing, readable=False)


def _run_command(arguments, path, cwd, env, stdout, stderr):
    """In the forked process: become the command."""
    import numpy
    import torch

    for number, end in ((1, stdout), (2, stderr)):
        if end is not None:
            os.dup2(end.fileno(), number)
    for end in {stdout, stderr} - {None}:
        end.close()
    sys.stdout = sys.__stdout__ = open(1, 'w', closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, 'w', closefd=False, buffering=1, errors='backslashreplace'
    )
    faulthandler.enable(2)  # where each thread is, when it is aborted
    # what a new process would draw or read for itself
    numpy.random.seed()
    if env.get('OMP_NUM_THREADS') != os.environ.get('OMP_NUM_THREADS'):
        torch.set_num_threads(int(env.get('OMP_NUM_THREADS', os.cpu_count())))
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)

    kind, *rest = arguments
    module = kind in ('-c', '-m')
    sys.argv = arguments if not module else ['-c', *rest[1:]]
    first = '' if kind == '-c' else cwd if kind == '-m' else str(Path(kind).resolve().parent)
    given = env.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[:] = [first, *(entry for entry in given if entry), *path]
    try:
        if kind == '-c':
            exec(compile(rest[0], '<string>', 'exec'), dict(__name__='__main__'))
        elif kind == '-m':
            runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
        else:
            runpy.run_path(kind, run_name='__main__')
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()

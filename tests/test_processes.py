"""Commands that start preloaded are processes as ``subprocess`` starts them."""

import json
import os
import signal
import subprocess
import sys

import pytest

import processes

SHOWN = """
import json, os, sys, threading
preloaded = {'torch', 'mmengine', 'mmsparsedit'} & {name.split('.')[0] for name in sys.modules}
import multiprocessing, numpy, torch
print(json.dumps(dict(
    argv=sys.argv, path=sys.path, cwd=os.getcwd(), env=dict(os.environ),
    threads=torch.get_num_threads(), start=multiprocessing.get_start_method(),
    tasks=len(os.listdir('/proc/self/task')), drawn=numpy.random.randint(2**31),
    preloaded=sorted(preloaded), name=__name__)))
"""
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def shown(run, *command, **kwargs):
    done = run([sys.executable, *command], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_forked_command_sees_what_a_new_one_sees(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SHOWN)
    env = {**os.environ, 'OMP_NUM_THREADS': '2', 'ONLY': 'here'}
    new = shown(subprocess.run, str(script), 'a', '--b', env=env, cwd=tmp_path)
    forked = shown(processes.run, str(script), 'a', '--b', env=env, cwd=tmp_path)
    assert new.pop('drawn') != forked.pop('drawn')
    assert new.pop('preloaded') == []
    assert forked.pop('preloaded') == ['mmengine', 'torch']  # the package is imported anew
    assert forked == new


def test_its_end_is_that_of_a_process():
    def end(code):
        return processes.run([sys.executable, '-c', code], capture_output=True, text=True)

    assert end('import sys; sys.exit(3)').returncode == 3
    assert end('import os, signal; os.kill(os.getpid(), signal.SIGKILL)').returncode == -9
    refused = end('import sys; print("out"); sys.exit("no such thing")')
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, 'out\n', 'no such thing\n')
    failed = end('import atexit; atexit.register(print, "last"); 1 / 0')
    assert failed.returncode == 1 and failed.stdout == 'last\n'
    assert failed.stderr.startswith('Traceback') and failed.stderr.endswith('by zero\n')


def test_it_is_stopped_by_signals_and_limits():
    sleep = [sys.executable, '-c', 'import time; print("on", flush=True); time.sleep(60)']
    process = processes.Popen(sleep, stdout=processes.PIPE, text=True)
    assert process.stdout.readline() == 'on\n' and process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == process.returncode == -signal.SIGTERM
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(sleep, capture_output=True, text=True, timeout=0.5)

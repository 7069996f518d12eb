"""Small real runs for tests: the digits configs, a network of a few thousand weights."""

import functools
import itertools
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import processes

ROOT = Path(__file__).resolve().parents[1]
SPARSE = 'configs/sparsedit/digits.py'
DENSE = 'configs/sparsedit/dit_digits.py'
TINY = [
    'model.network.hidden_size=16',
    'model.network.num_heads=2',
    'train_dataloader.batch_size=16',
    'val_dataloader=None',
    'val_cfg=None',
    'val_evaluator=None',
    'default_hooks.sample_grid=None',
    'param_scheduler=None',
    'default_hooks.throughput=None',
]

# MMEngine shares state between runs of one name and second
NUMBERS = itertools.count()
STORES = []  # kept until the tests end


@functools.cache
def remember_formatting():
    """Text of a config is formatted once, not seven times a run: two thirds of a tiny training."""
    from mmengine.config import config

    format_code, known = config.FormatCode, {}

    def remembered(text, **options):
        key = text, repr(options)
        if key not in known:
            known[key] = format_code(text, **options)
        return known[key]

    config.FormatCode = remembered


def train(
    work_dir, iterations, *options, config=SPARSE, resume=None, tiny=True, validate=False,
    custom_hooks=(),
):  # fmt: skip
    """Train in this process; returns the Runner."""
    from mmengine.config import DictAction

    from mmsparsedit.apis.launch import build_runner, load_config

    remember_formatting()
    small = [option for option in TINY if not (validate and option.startswith('val_'))]
    given = [*(small if tiny else []), f'train_cfg.max_iters={iterations}', *options]
    parsed = {}
    for option in given:
        key, _, value = option.partition('=')
        parsed[key] = DictAction._parse_iterable(value)
    cfg = load_config(str(ROOT / config), parsed)
    cfg.work_dir = str(work_dir)
    cfg.custom_hooks = list(custom_hooks)
    cfg.experiment_name = f'run{next(NUMBERS)}'
    if resume:
        cfg.resume, cfg.load_from = True, str(resume)
    runner = build_runner(cfg)
    runner.train()
    return runner


def tool(*arguments, env=None, threads=1):
    """Arguments of a process: a tool of the repository, started from its root."""
    command = [sys.executable, *map(str, arguments)]
    variables = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHON': sys.executable}
    variables.update(env or {})
    return dict(args=command, cwd=ROOT, env=variables, text=True)


def run_tool(*arguments, **kwargs):
    return processes.run(**tool(*arguments, **kwargs), capture_output=True, timeout=300)


def run_ranks(*arguments, folder, world=2):
    """A command as the ranks of one gloo group: their exit codes and what they printed.

    They are started again, once and with a warning, where a rank died of a signal or did not end.
    Gloo does that by itself, seen twice in about 400 000 collectives on loaded cores (torch
    2.14.1): a thread of it span for ever in the destructor of a buffer; SIGSEGV in a loop of
    all-reduces and all-gathers, nothing of ours. An error of ours leaves an exit code above 0.
    """
    codes, texts = start_ranks(*arguments, folder=folder, world=world)
    if min(codes) < 0:
        warnings.warn(f'started again, ranks ended by {codes}:\n' + '\n'.join(texts), stacklevel=2)
        codes, texts = start_ranks(*arguments, folder=folder, world=world)
    return codes, texts


def start_ranks(*arguments, folder, world):
    address = meeting_place()
    logs = [Path(folder) / f'rank{rank}.txt' for rank in range(world)]
    ranks = []
    for rank, log in enumerate(logs):
        place = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), **address)
        with open(log, 'w') as file:
            command = tool(*arguments, env=place)
            ranks.append(processes.Popen(**command, stdout=file, stderr=processes.STDOUT))
    try:
        codes = wait_for_all(ranks, 200)
    finally:
        for process in ranks:
            process.kill()
    return codes, [log.read_text() for log in logs]


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


def wait_for_all(ranks, seconds):
    """Exit codes; after ``seconds``, ranks that still run print where they are and abort."""
    end = time.monotonic() + seconds
    try:
        return [process.wait(max(0, end - time.monotonic())) for process in ranks]
    except processes.TimeoutExpired:
        for process in ranks:
            process.send_signal(signal.SIGABRT)
        return [process.wait(30) for process in ranks]

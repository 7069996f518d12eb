"""Small real runs for tests: the digits configs, a network of a few thousand weights."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

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
]

# MMEngine shares state between runs of one name and second
NUMBERS = itertools.count()


def train(work_dir, iterations, *options, config=SPARSE, resume=None, tiny=True):
    """Train in this process; returns the Runner."""
    from mmengine.config import DictAction

    from mmsparsedit.apis.launch import build_runner, load_config

    given = [*(TINY if tiny else []), f'train_cfg.max_iters={iterations}', *options]
    parsed = {}
    for option in given:
        key, _, value = option.partition('=')
        parsed[key] = DictAction._parse_iterable(value)
    cfg = load_config(str(ROOT / config), parsed)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'run{next(NUMBERS)}'
    if resume:
        cfg.resume, cfg.load_from = True, str(resume)
    runner = build_runner(cfg)
    runner.train()
    return runner


def tool(*arguments, env=None, threads=1):
    """Arguments for subprocess: a tool of the repository, started from its root."""
    command = [sys.executable, *map(str, arguments)]
    variables = {**os.environ, 'OMP_NUM_THREADS': str(threads), **(env or {})}
    return dict(args=command, cwd=ROOT, env=variables, text=True)


def run_tool(*arguments, **kwargs):
    return subprocess.run(**tool(*arguments, **kwargs), capture_output=True, timeout=300)

"""Small real runs for tests: the digits configs, a network of a few thousand weights."""

import functools
import itertools
import os
import sys
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

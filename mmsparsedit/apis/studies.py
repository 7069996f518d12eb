"""Studies: many runs of the repository's tools, each made once and found again in its work dir."""

import subprocess
import sys
from pathlib import Path

from .launch import ConfigError

ROOT = Path(__file__).resolve().parents[2]  # of the repository, which studies need


def run_once(folder: Path, result: str, tool: str, *arguments: str | Path) -> None:
    """A tool of the repository, unless ``folder`` holds its ``result``; its words go there too.

    Raises:
        ConfigError: it failed; the end of what it said.
    """
    if (folder / result).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    with open(folder / 'console.txt', 'w') as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        tail = '\n'.join((folder / 'console.txt').read_text().splitlines()[-5:])
        raise ConfigError(f'{folder.name} ended with {code}:\n{tail}')
    print(folder.name, flush=True)


def length(iterations: int) -> list[str]:
    """Options of a digits training of so many iterations; the average spans the same share of each.

    An average over a fixed number of iterations would leave a short training near its start.
    """
    return [
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}',
        f'param_scheduler.0.end={iterations}',
        f'default_hooks.checkpoint.interval={iterations}',
        f'default_hooks.ema.momentum={min(0.3, 4.5 / iterations):.3f}',
        'default_hooks.sample_grid=None',
    ]


# a quarter of the time of the configs' own, for dense and sparse alike
SAMPLING = (
    'model.sampler.type=DiffusersSampler',
    'model.sampler.scheduler=DPMSolverMultistepScheduler',
    'model.sampler.num_steps=15',
    'val_dataloader.dataset.num_samples=500',
    'test_dataloader.dataset.num_samples=500',
)
KEYS = ('digits/recognised=recognised, %', 'digits/frechet=Fréchet distance')

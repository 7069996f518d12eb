"""Studies: many runs of the repository's tools, each made once and found again in its work dir."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .launch import ConfigError
from .runs import read_run

ROOT = Path(__file__).resolve().parents[2]  # of the repository, which studies need


@dataclass(frozen=True)
class Study:
    """What a study of conversions needs of its data.

    Attributes:
        name: of its configs: ``dit_NAME``, and ``NAME_`` with ``distill``, ``lora`` and
            ``cheap_guidance``, which is elastic.
        iterations: of the dense model.
        sampling: options of every run, for dense and sparse models alike.
        recognised: metric in percent; ``distance`` is the one that is plotted.
        budgets: shares of the dense MACs at which the elastic model is tested.
        specialised: those of them that a model of its own is trained for.
    """

    name: str
    iterations: int
    sampling: tuple[str, ...]
    recognised: str
    distance: str
    budgets: tuple[float, ...]
    specialised: tuple[float, ...]

    def config(self, form: str) -> Path:
        return ROOT / f'configs/sparsedit/{form.format(self.name)}.py'

    @property
    def keys(self) -> tuple[str, ...]:
        return f'{self.recognised}=recognised, %', f'{self.distance}=Fréchet distance'

    def dense(self, work_dir: Path, seed: int) -> str:
        """The dense checkpoint of a seed, trained first if it is not there."""
        config = self.config('dit_{}')
        folder = work_dir / f'{config.stem}_seed{seed}'
        run_once(
            folder, 'metrics.json', 'train.py', config, '--resume', '--work-dir', folder,
            '--cfg-options', f'randomness.seed={seed}',
        )  # fmt: skip
        return read_run(folder).checkpoint


_QUICK = (  # a quarter of the time of the configs' own
    'model.sampler.type=DiffusersSampler',
    'model.sampler.scheduler=DPMSolverMultistepScheduler',
    'model.sampler.num_steps=15',
    'val_dataloader.dataset.num_samples=500',
    'test_dataloader.dataset.num_samples=500',
)
_SMALL = (  # batches that stay in the caches of a CPU
    'val_dataloader.batch_size=50',
    'test_dataloader.batch_size=50',
)
STUDIES = {
    study.name: study
    for study in (
        Study(
            'digits', 1500, _QUICK, 'digits/recognised', 'digits/frechet',
            budgets=(0.48, 0.52, 0.57, 0.65, 0.75, 0.9), specialised=(0.48, 0.52, 0.65),
        ),
        Study(
            'mnist28', 6000, _SMALL, 'real/recognised', 'real/frechet',
            budgets=(0.55, 0.58, 0.62, 0.68, 0.75, 0.85), specialised=(0.55, 0.75),
        ),
    )
}  # fmt: skip


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
    """Options of a training of so many iterations; the average spans the same share of each.

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

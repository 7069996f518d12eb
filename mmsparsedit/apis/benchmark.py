"""How fast models sample and train, on the clock: a table of cases, measured by turns.

The sides of a case are built from configs with random weights and run A B A B ..., so that what
changes on the machine meanwhile meets all of them. Inputs are random; autoencoder and text encoder
are left out. Times are seconds, ``MACs`` multiply-accumulates of network calls.
"""

import copy
import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import yaml
from mmengine.logging import MessageHub
from torch import Tensor

from mmsparsedit.engine.ema import ForeachEMA
from mmsparsedit.models import DiffusionGenerator
from mmsparsedit.models import cost as counted
from mmsparsedit.models.cost import Call
from mmsparsedit.registry import MODELS

from .attention_kernels import ATTENTIONS, attention_kernel, run_attention
from .clock import machine, matrix_rate, on_gpu, spread, timed
from .inference import choose_sampler
from .launch import ConfigError, load_config
from .metafiles import entry_of
from .profiling import peak_memory, seconds_by_name, shares

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One row of a benchmark: a config, what it is compared with, and how both are run."""

    title: str
    config: str  # path, or name such as 'sparsedit/xl_512'
    baseline: str | None = None  # likewise; 'plain': the config without acceleration and options
    # the largest that fits for both sides is taken; a number stands for itself and its halves
    batch: int | Sequence[int] = 8
    paper: float | None = None  # samples per second that the paper gives
    paper_baseline: float | None = None
    # or 'train': forward, backward, fused AdamW and EMA; or 'deviation' (``apis.deviation``)
    mode: str = 'sample'
    device: str = 'cpu'
    dtype: str = 'fp32'  # 'bf16' samples by Acceleration's bf16 and trains under autocast
    attention: str = 'fused'  # by PyTorch's kernels; 'unfused' as the paper's baseline
    acceleration: dict = field(default_factory=dict)  # of both sides, as far as they can
    # of a baseline 'plain', e.g. the same without one of the levers
    acceleration_of_plain: dict = field(default_factory=dict)
    # keys of the config to change, as by --cfg-options, not of the baseline: another method, or
    # fewer steps
    options: dict = field(default_factory=dict)
    # None: whole trajectories; k: k network calls of each stage, weighted by how often the sampler
    # comes there, as training steps always are
    steps_per_stage: int | None = None
    rounds: int = 5  # measurements of each side
    profile: bool = False  # afterwards record which kernels the time goes to

    def __post_init__(self) -> None:
        modes = ('sample', 'train', 'deviation')
        known = dict(mode=modes, dtype=tuple(DTYPES), attention=ATTENTIONS)
        for name, accepted in known.items():
            found = getattr(self, name)
            _refuse(found not in accepted, f'{name} must be one of {accepted}, got {found!r}.')
        interval, method = (self.acceleration.get(k) for k in ('cache_interval', 'method'))
        cached = (interval or 1) > 1 or method is not None
        untrained = [name for name in ('cuda_graphs', 'fp8') if self.acceleration.get(name)]
        _refuse(
            min(self.rounds, 1 if self.steps_per_stage is None else self.steps_per_stage) < 1,
            f'rounds {self.rounds} and steps_per_stage {self.steps_per_stage} must be at least 1; '
            'leave steps_per_stage out for whole trajectories.',
        )
        _refuse(
            self.attention == 'unfused' and bool(self.acceleration.get('compile')),
            'the compiler may put the fused kernel back in place of an unfused attention: measure '
            'unfused without compile.',
        )
        _refuse(
            self.steps_per_stage is not None and cached,
            'a cached step depends on those before it: measure whole trajectories, without '
            'steps_per_stage.',
        )
        _refuse(
            self.mode == 'train' and (cached or bool(untrained)),
            f'{untrained or "a cache"} serves sampling only: measure training without.',
        )
        _refuse(
            on_gpu(self.device) and not torch.cuda.is_available(),
            f'device {self.device} was asked for, and there is no CUDA GPU.',
        )


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise ValueError(message)


def read_cases(name: str, folder: Path) -> list[Case]:
    """The table ``{name}.yml`` of a folder, or a file: a list of arguments of ``Case``.

    ``paper: metafile`` stands for what the metafiles beside both configs say of the paper.

    Raises:
        ConfigError: neither exists; no such table, an argument that ``Case`` does not take.
    """
    path = next((p for p in (folder / f'{name}.yml', Path(name)) if p.is_file()), None)
    if path is None:
        known = ', '.join(sorted(p.stem for p in folder.glob('*.yml')))
        raise ConfigError(f'no table of cases {name!r}: give a file, or one of {known}.')
    cases = []
    if path.suffix not in ('.yml', '.yaml', '.json'):
        raise ConfigError(f'table of cases {path}: expected a .yml or .json file.')
    try:
        rows = yaml.safe_load(path.read_text(encoding='utf-8'))  # of which JSON is a part
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f'table of cases {path}: {error}') from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f'table of cases {path}: expected a list of arguments of Case.')
    for number, row in enumerate(rows, 1):
        try:
            if row.get('paper') == 'metafile':
                files = (folder.parent / f'{row[key]}.py' for key in ('config', 'baseline'))
                speeds = [entry_of(file).paper.samples_per_second for file in files]
                row.update(zip(('paper', 'paper_baseline'), speeds, strict=True))
            cases.append(Case(**row))
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(f'table of cases {path}, case {number}: {error}') from error
    return cases


def read_model(folder: Path, options: dict, sampling: Sequence, config: str, own: dict) -> dict:
    """Config of a generator, for ``benchmark`` once the first three are given.

    Args:
        folder: where configs are found by name.
        options, own: keys to change, in all configs and in this one.
        sampling: further arguments of ``choose_sampler``.
    """
    named = folder / f'{config}.py'
    loaded = load_config(str(named if named.is_file() else config), options)
    choose_sampler(loaded.model, *sampling)
    loaded.merge_from_dict(own)
    return loaded.model.to_dict()


def benchmark(case: Case, read: Callable[[str, dict], dict]) -> dict:
    """Measure the sides of a case by turns, at the largest batch that fits for all.

    Args:
        read: (path of a config, keys to change in it) -> config of its generator.

    Returns:
        JSON values: the case as ``setting`` and the machine; per side images per second (median,
        min, max, quartiles over rounds), cost, MAC rate, its share of the matrix rate, memory;
        with a baseline ``speedup``, the ratio within each round.

    Raises:
        MemoryError: no batch fits.
    """
    name, bare = Path(case.config).stem, replace(case, options={})
    sides = [Side(name, read(case.config, case.options), case)]
    if case.baseline == 'plain':
        bare = replace(bare, acceleration=case.acceleration_of_plain)
        sides.append(Side(f'{name} plain', read(case.config, {}), bare))
    elif case.baseline:
        other = Path(case.baseline).stem
        other += ' (baseline)' if other == name else ''
        sides.append(Side(other, read(case.baseline, {}), bare))
    with run_attention(case.attention):
        batch = _fitting_batch(sides, case.batch)
        rates = []
        for _ in range(case.rounds):
            rates.append(matrix_rate(case.device, DTYPES[case.dtype]))
            for side in sides:
                side.rounds.append(side.measure())
        rate = spread(rates)['median']
        reported = [side.report(rate) for side in sides]
    report = dict(setting=asdict(case), batch=batch, matrix_tmacs_per_second=rate / 1e12)
    report |= dict(**machine(case.device), sides=reported)
    if case.baseline:
        fast, base = sides
        pairs = zip(fast.rounds, base.rounds, strict=True)
        ratio = spread([theirs['seconds'] / ours['seconds'] for ours, theirs in pairs])
        macs = base.macs_per_sample / fast.macs_per_sample
        ratio |= dict(macs_ratio=macs, share_of_macs_ratio=ratio['median'] / macs)
        report['speedup'] = ratio
    return report


def _fitting_batch(sides: Sequence['Side'], batch: int | Sequence[int]) -> int:
    """Prepare all sides for the largest batch that fits."""
    halves = [batch >> i for i in range(batch.bit_length())] if isinstance(batch, int) else batch
    sizes = sorted(set(halves), reverse=True)
    for size in sizes:
        try:
            for side in sides:
                side.prepare(size)
            return size
        except (MemoryError, RuntimeError) as error:
            no_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
            if not no_memory and "can't allocate memory" not in str(error):  # the CPU's allocator
                raise
        # out here the traceback no longer holds what was allocated
        for side in sides:
            side.release()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MemoryError(
        f'no batch of {sizes} fits on {sides[0].case.device} for '
        f'{" and ".join(side.name for side in sides)}: give smaller ones with --batch-size.'
    )


class Side:
    """One model of a case: its generator, what its work costs, and a way to do it.

    Args:
        name: of the config.
        model_config: of a generator; its autoencoder and text encoder are left out.
    """

    def __init__(self, name: str, model_config: dict, case: Case) -> None:
        self.name, self.case, self.training = name, case, case.mode == 'train'
        self.generator = build_generator(model_config, case)
        calls = counted.trajectory_calls(self.generator)
        self.calls, self.nfe = len(calls), sum(1 + call.guided for call in calls)
        self.work = training_work(self.generator) if self.training else Counter(calls)
        by_grid = counted.macs_by_grid(self.generator)
        if self.training:
            self.macs = {call: by_grid[call.grid] for call in self.work}
        else:
            self.macs = counted.call_macs(self.generator, self.work, by_grid)
        passes = counted.TRAINING_MACS_PER_FORWARD if self.training else 1
        # of one trajectory, or of one training step on one sample
        self.macs_per_sample = passes * sum(n * self.macs[call] for call, n in self.work.items())
        if not self.training and case.steps_per_stage is None:
            self.macs_per_sample += counted.read_once_macs(self.generator)
        # without the calls of the step cache, which follow the others
        self.stages = [call for call in self.work if not call.reused]
        self.rounds: list[dict] = []  # results of ``measure``

    def prepare(self, batch: int) -> None:
        """Compile, capture and warm up everything that will be timed; its peak of memory."""
        self.release()
        self.batch = batch
        weights = sum(p.nbytes for p in self.generator.parameters())
        began = time.perf_counter()
        self.peak = weights + peak_memory(self._warm_up, self.case.device)  # bytes
        self.cold = time.perf_counter() - began

    def _warm_up(self) -> None:
        generator = self.generator
        self._request = random_request(generator, self.batch)
        self._data = torch.randn(self.batch, *generator.data_shape, device=generator.device)
        if self.training:
            weights = generator.parameters()
            self._optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0, fused=True)
            self._average = ForeachEMA(generator, momentum=1e-4)
        for call in self.stages:
            timed(self._step(call), self.case.device, times=2)

    def release(self) -> None:
        """Forget what ``prepare`` made, as far as it got: the next one begins as the first."""
        self.generator.accelerate(**self.generator.acceleration.options)  # compiled for one batch
        self.generator.zero_grad(set_to_none=True)
        self._optimizer = self._average = self._data = None

    def measure(self) -> dict:
        """Seconds for one batch of samples, or for one training step, and those of each stage."""
        device, times = self.case.device, self.case.steps_per_stage
        if not self.training and times is None:
            sample = partial(self.generator.sample, range(self.batch), **self._request)
            return dict(seconds=timed(sample, device), stages={})
        stages = {call: timed(self._step(call), device, times or 1) for call in self.stages}
        return dict(seconds=sum(n * stages[call] for call, n in self.work.items()), stages=stages)

    def profile(self) -> dict:
        """Shares of the time by kind of work and by kernel, the stages weighted as in ``measure``.

        Calls that the step cache spares are left out.
        """
        seconds: Counter = Counter()
        for call in self.stages:
            spent = seconds_by_name(self._step(call), self.case.device)
            seconds.update({name: self.work[call] * each for name, each in spent.items()})
        return shares(seconds)

    def _step(self, call: Call) -> Callable[[], object]:
        """One network call, or training step, at one stage."""
        if self.training:
            return partial(self._train_step, iteration_at(self.generator, call.grid))
        model = self.generator.denoiser(self.batch, **self._request)
        return partial(model, self._data, timestep_at(self.generator, call))

    def _train_step(self, iteration: int) -> None:
        hub = MessageHub.get_current_instance()
        hub.update_info('seed', 0)
        hub.update_info('iter', iteration)
        device, low = torch.device(self.case.device).type, self.case.dtype == 'bf16'
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            loss = self.generator(inputs=self._data, mode='loss', **self._request)['loss']
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._average.update_parameters(self.generator)

    def report(self, rate: float) -> dict:
        """What was measured, as JSON values; ``rate`` is the matrix rate in MACs per second."""
        case, guidance = self.case, self.generator.guidance
        speed = spread([self.batch / r['seconds'] for r in self.rounds])
        achieved = self.macs_per_sample * speed['median']
        by_stage = self.rounds[0]['stages']
        stages = [
            dict(
                **call._asdict(),
                weight=weight,
                gmacs_per_sample=self.macs[call] / 1e9,
                seconds=spread([r['stages'][call] for r in self.rounds]) if by_stage else None,
            )
            for call, weight in self.work.items()
        ]
        return dict(
            name=self.name,
            attention_kernel=attention_kernel(
                self.generator, case.attention, case.device, DTYPES[case.dtype]
            ),
            acceleration=self.generator.acceleration.options,
            guidance={key: getattr(guidance, key) for key in ('scale', 'channels', 'interval')},
            calls=self.calls,
            nfe=self.nfe,
            gmacs_per_sample=self.macs_per_sample / 1e9,
            samples_per_second=speed,
            tmacs_per_second=achieved / 1e12,
            share_of_matrix_rate=achieved / rate,
            peak_memory_gib=self.peak / 2**30,
            cold_seconds=self.cold,
            stages=stages,
            **(dict(profile=self.profile()) if case.profile else {}),
        )


def build_generator(model_config: dict, case: Case) -> DiffusionGenerator:
    """A generator on the device of the case, with random weights, none of them zero.

    Zeros, of which a new network has many, would let a GPU run at a higher clock. What the config
    leaves to ``auto`` is off unless the case turns it on: a case says what it measures.
    """
    config = copy.deepcopy(dict(model_config))
    for absent in {'autoencoder', 'text_encoder', 'null_caption'} & set(config):
        config[absent] = None
    options = {**(config.pop('acceleration', None) or {}), 'auto': False, **case.acceleration}
    if case.dtype == 'bf16' and case.mode == 'sample':
        options['dtype'] = 'bfloat16'
    with torch.device(case.device):
        generator = MODELS.build(config)
    generator.to(case.device).train(case.mode == 'train')
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn_like(p), alpha=0.02)
    if not generator.network.middle:  # a dense baseline has no segment to cache
        options.pop('cache_interval', None)
    generator.accelerate(**options)
    return generator


def random_request(generator: DiffusionGenerator, batch: int) -> dict[str, Tensor]:
    """Conditions of ``batch`` samples: random labels, or random text features of full length."""
    num_classes = getattr(generator.network, 'num_classes', None)
    if num_classes is not None:
        return dict(label=torch.randint(num_classes, (batch,), device=generator.device))
    inputs = generator.network.example_inputs(batch, generator.device)
    request = {key: value for key, value in inputs.items() if key not in ('x', 't')}
    if 'y' in request:
        request['y'] = torch.randn_like(request['y'])
    return request


def training_work(generator: DiffusionGenerator) -> dict[Call, float]:
    """The share of training steps at each grid."""
    prune, T = generator.prune, generator.diffusion.num_train_timesteps
    if prune is None:
        return {Call(None, False, False): 1.0}
    share = getattr(generator.diffusion, 'time_cdf', lambda s: s)
    work: Counter = Counter()
    for stage in prune.stages:
        work[Call(stage.grid, False, False)] += share(stage.t_end / T) - share(stage.t_start / T)
    return dict(work)


def iteration_at(generator: DiffusionGenerator, grid: tuple[int, ...] | None) -> int:
    """The first iteration of seed 0 that trains at ``grid``."""
    for iteration in range(100_000):
        if generator.training_grid(0, iteration) == grid:
            return iteration
    raise ValueError(f'no iteration draws the grid {grid}: its stage is too short to be measured.')


def timestep_at(generator: DiffusionGenerator, call: Call) -> float:
    """The first timestep of the sampler that makes ``call``; ValueError where none does."""
    made = counted.trajectory_calls(generator).index(call)
    return generator.sampler.timesteps(generator.diffusion)[made]

"""How fast a model samples and trains, on the clock: what ``benchmark.py`` measures.

Sides are built from configs with random weights and measured in turn, A B A B ..., so that what
changes on the machine meanwhile meets all of them. Inputs are random; the autoencoder and text
encoder are left out. Times are seconds, ``MACs`` multiply-accumulates of network calls.
"""

import copy
import gc
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace

import torch
from mmengine.logging import MessageHub
from torch import Tensor

from mmsparsedit.engine.ema import ForeachEMA
from mmsparsedit.models import DiffusionGenerator
from mmsparsedit.models.cost import (
    TRAINING_MACS_PER_FORWARD,
    Call,
    call_macs,
    macs_by_grid,
    trajectory_calls,
)
from mmsparsedit.registry import MODELS

from .attention_kernels import ATTENTIONS, attention_kernel, run_attention
from .clock import allocated, machine, matrix_rate, peak, reset_peak, spread, synchronize, timed
from .profiling import cpu_peak, seconds_by_name, shares

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """What both sides of a benchmark share.

    Args:
        mode: ``'sample'``, or ``'train'``: forward, backward, fused AdamW and EMA.
        dtype: ``'bf16'`` samples by ``Acceleration``'s bf16 and trains under autocast.
        attention: ``'fused'`` leaves the kernel to PyTorch, ``'unfused'`` computes the score
            matrix, as the paper's baseline does (``written_out_attention``).
        acceleration: further arguments of ``Acceleration``.
        steps_per_stage: None samples whole trajectories; k times k network calls of each stage and
            weighs them by how often the sampler comes there. Training always does the latter.
        rounds: measurements of each side.
        profile: afterwards record which kernels the time goes to.
    """

    mode: str = 'sample'
    device: str = 'cpu'
    dtype: str = 'fp32'
    attention: str = 'fused'
    acceleration: dict = field(default_factory=dict)
    steps_per_stage: int | None = None
    rounds: int = 3
    profile: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (
            ('mode', ('sample', 'train')),
            ('dtype', tuple(DTYPES)),
            ('attention', ATTENTIONS),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f'{name} must be one of {accepted}, got {getattr(self, name)!r}.')
        if self.rounds < 1 or (self.steps_per_stage is not None and self.steps_per_stage < 1):
            raise ValueError(
                f'rounds {self.rounds} and steps_per_stage {self.steps_per_stage} must be at least '
                '1; leave steps_per_stage out for whole trajectories.'
            )
        if self.attention == 'unfused' and self.acceleration.get('compile'):
            raise ValueError(
                'the compiler may put the fused kernel back in place of an unfused attention: '
                'measure unfused without compile.'
            )
        if self.steps_per_stage and self.acceleration.get('cache_interval', 1) > 1:
            raise ValueError(
                'a cached step depends on those before it: measure whole trajectories, without '
                'steps_per_stage.'
            )
        if self.mode == 'train':
            absent = [k for k in ('cuda_graphs', 'fp8') if self.acceleration.get(k)]
            if absent or self.acceleration.get('cache_interval', 1) > 1:
                raise ValueError(
                    f'{absent or "cache_interval"} serves sampling only: measure training without.'
                )
        if torch.device(self.device).type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(f'device {self.device} was asked for, and there is no CUDA GPU.')

    @property
    def options(self) -> dict:
        """Arguments of ``Acceleration``."""
        low = {'dtype': 'bfloat16'} if self.dtype == 'bf16' and self.mode == 'sample' else {}
        return {**self.acceleration, **low}


class Side:
    """One model of a benchmark: its generator, what its work costs, and a way to do it.

    Args:
        name: of the config.
        model_config: of a generator; its autoencoder and text encoder are left out.
    """

    def __init__(self, name: str, model_config: dict, setting: Setting) -> None:
        self.name, self.setting = name, setting
        before = allocated(setting.device)
        self.generator = build_generator(model_config, setting)
        self._built = allocated(setting.device) - before
        calls = trajectory_calls(self.generator)
        self.work = Counter(calls) if setting.mode == 'sample' else training_work(self.generator)
        self.macs = call_macs(self.generator, self.work, macs_by_grid(self.generator))
        self.num_calls = len(calls)
        self.nfe = sum(1 + call.guided for call in calls)
        self._optimizer: torch.optim.Optimizer | None = None
        self.peak_on_cpu = 0  # bytes, weights included; on a GPU each round is watched instead

    @property
    def macs_per_sample(self) -> float:
        """Of one trajectory, or of one training step on one sample."""
        forward = sum(count * self.macs[call] for call, count in self.work.items())
        return forward * (TRAINING_MACS_PER_FORWARD if self.setting.mode == 'train' else 1)

    def prepare(self, batch: int) -> None:
        """Compile, capture and warm up everything that will be timed."""
        if torch.device(self.setting.device).type == 'cuda':
            return self._prepare(batch)
        weights = sum(p.nbytes for p in self.generator.parameters())
        self.peak_on_cpu = weights + cpu_peak(lambda: self._prepare(batch))

    def _prepare(self, batch: int) -> None:
        self.batch = batch
        before = allocated(self.setting.device)
        self.generator.accelerate(**self.generator.acceleration.options)  # forgets other batches
        self._request = random_request(self.generator, batch)
        self._data = torch.randn(batch, *self.generator.data_shape, device=self.generator.device)
        if self.setting.mode == 'train' and self._optimizer is None:
            weights = self.generator.parameters()
            self._optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0, fused=True)
            self._average = ForeachEMA(self.generator, momentum=1e-4)
        for call in self._stages():
            self._steps(call, 2)()
        synchronize(self.setting.device)
        # bytes that this side holds between measurements
        self.resident = self._built + allocated(self.setting.device) - before

    def release(self) -> None:
        """Forget what ``prepare`` made, as far as it got: the next one begins as the first."""
        self.generator.accelerate(**self.generator.acceleration.options)
        self.generator.zero_grad(set_to_none=True)
        self._optimizer = self._average = self._data = None

    def measure(self) -> dict:
        """Seconds for one batch of samples, or for one training step, and those of each stage."""
        if self.setting.mode == 'sample' and self.setting.steps_per_stage is None:
            seconds = timed(self._trajectory, self.setting.device)
            return dict(seconds=seconds, stages={})
        k = self.setting.steps_per_stage or 1
        stages = {
            call: timed(self._steps(call, k), self.setting.device) / k for call in self._stages()
        }
        return dict(
            seconds=sum(count * stages[call] for call, count in self.work.items()), stages=stages
        )

    def profile(self) -> dict:
        """Shares of the time by kind of work and by kernel, the stages weighted as in ``measure``.

        Calls that the step cache spares are left out.
        """
        seconds: Counter = Counter()
        for call in self._stages():
            spent = seconds_by_name(self._steps(call, 1), self.setting.device)
            seconds.update({name: self.work[call] * each for name, each in spent.items()})
        return shares(seconds)

    def _stages(self) -> list[Call]:
        """Distinct calls, without those of the step cache, which follow the others."""
        return [call for call in self.work if not call.reused]

    def _steps(self, call: Call, count: int) -> Callable[[], None]:
        """``count`` network calls, or training steps, at one stage."""
        if self.setting.mode == 'train':
            iteration = iteration_at(self.generator, call.grid)
            return lambda: [self._train_step(iteration) for _ in range(count)] and None
        t = timestep_at(self.generator, call)
        model = self.generator.denoiser(self.batch, **self._request)

        def run() -> None:
            for _ in range(count):
                model(self._data, t)

        return run

    def _trajectory(self) -> None:
        self.generator.sample(range(self.batch), **self._request)

    def _train_step(self, iteration: int) -> None:
        hub = MessageHub.get_current_instance()
        hub.update_info('seed', 0)
        hub.update_info('iter', iteration)
        low = self.setting.dtype == 'bf16'
        device = torch.device(self.setting.device).type
        with torch.autocast(device, torch.bfloat16) if low else nullcontext():
            loss = self.generator(inputs=self._data, mode='loss', **self._request)['loss']
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._average.update_parameters(self.generator)


def build_generator(model_config: dict, setting: Setting) -> DiffusionGenerator:
    """A generator on the device of the setting, with random weights, none of them zero.

    Zeros, of which a new network has many, would let a GPU run at a higher clock.
    """
    config = copy.deepcopy(dict(model_config))
    for absent in ('autoencoder', 'text_encoder', 'null_caption'):
        if absent in config:
            config[absent] = None
    options = {**(config.pop('acceleration', None) or {}), **setting.options}
    with torch.device(setting.device):
        generator = MODELS.build(config)
    generator.to(setting.device).train(setting.mode == 'train')
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn_like(p), alpha=0.02)
    if not generator.network.middle:  # a dense baseline has no segment to cache
        options.pop('cache_interval', None)
    generator.accelerate(**options)
    return generator


def random_request(generator: DiffusionGenerator, batch: int) -> dict[str, Tensor]:
    """Conditions of ``batch`` samples: random labels, or random text features of full length."""
    inputs = generator.network.example_inputs(batch, generator.device)
    if getattr(generator.network, 'num_classes', None) is not None:
        labels = torch.randint(generator.network.num_classes, (batch,), device=generator.device)
        return dict(label=labels)
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
    """A timestep of the sampler with the grid and the guidance of ``call``."""
    for t in generator.sampler.timesteps(generator.diffusion):
        grid = None if generator.prune is None else generator.prune.grid_at(t)
        if (grid, generator.guidance.active_at(t)) == call[:2]:
            return t
    raise ValueError(f'the sampler has no {call}.')


# -- a benchmark ----------------------------------------------------------------------------------


def benchmark(
    models: dict[str, dict],
    setting: Setting,
    batch_sizes: Sequence[int],
    plain: Sequence[str] = (),
) -> dict:
    """Measure the models in turn, at the largest batch that fits for all.

    Args:
        models: config of a generator by name; the second, where there is one, is the baseline.
        batch_sizes: tried from the largest on.
        plain: names of models that run without the acceleration of the setting.

    Returns:
        JSON values: the setting and the machine; per side images per second (median, min, max,
        quartiles over rounds), cost, MAC rate, its share of the matrix rate, memory; with a
        baseline ``speedup``, the ratio within each round.

    Raises:
        MemoryError: no batch fits.
    """
    sides = [
        Side(name, config, replace(setting, acceleration={}) if name in plain else setting)
        for name, config in models.items()
    ]
    with run_attention(setting.attention):
        batch = _fitting_batch(sides, sorted(set(batch_sizes), reverse=True))
        rounds: list[list[dict]] = []
        rates, peaks = [], [side.peak_on_cpu for side in sides]
        for _ in range(setting.rounds):
            rates.append(matrix_rate(setting.device, DTYPES[setting.dtype]))
            measured = []
            for i, side in enumerate(sides):
                others = allocated(setting.device) - side.resident
                reset_peak(setting.device)
                measured.append(side.measure())
                peaks[i] = max(peaks[i], peak(setting.device) - others)
            rounds.append(measured)
        rate = statistics.median(rates)
        report = dict(
            setting=asdict(setting),
            batch=batch,
            matrix_tmacs_per_second=rate / 1e12,
            **machine(setting.device),
        )
        report['sides'] = [
            _side_report(side, [r[i] for r in rounds], rate, peaks[i])
            for i, side in enumerate(sides)
        ]
        if setting.profile:
            for side, reported in zip(sides, report['sides'], strict=True):
                reported['profile'] = side.profile()
    if len(sides) == 2:
        ratios = [base['seconds'] / fast['seconds'] for fast, base in rounds]
        macs = sides[1].macs_per_sample / sides[0].macs_per_sample
        report['speedup'] = dict(
            **spread(ratios), macs_ratio=macs, share_of_macs_ratio=statistics.median(ratios) / macs
        )
    return report


def _fitting_batch(sides: list[Side], batch_sizes: list[int]) -> int:
    for batch in batch_sizes:
        try:
            for side in sides:
                side.prepare(batch)
            return batch
        except (torch.cuda.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # of the CPU's allocator
                raise
        # out here the traceback no longer holds what was allocated
        for side in sides:
            side.release()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MemoryError(
        f'no batch of {batch_sizes} fits on {sides[0].setting.device} for '
        f'{" and ".join(side.name for side in sides)}: give smaller ones with --batch-size.'
    )


def _side_report(side: Side, rounds: list[dict], rate: float, peak: int) -> dict:
    per_second = [side.batch / r['seconds'] for r in rounds]
    guidance = side.generator.guidance
    achieved = side.macs_per_sample * statistics.median(per_second)
    stages = [
        dict(
            grid=None if call.grid is None else list(call.grid),
            guided=call.guided,
            reused=call.reused,
            weight=side.work[call],
            gmacs_per_sample=side.macs[call] / 1e9,
            seconds=spread([r['stages'][call] for r in rounds]) if rounds[0]['stages'] else None,
        )
        for call in side.work
    ]
    return dict(
        name=side.name,
        attention_kernel=attention_kernel(
            side.generator, side.setting.attention, side.setting.device, DTYPES[side.setting.dtype]
        ),
        acceleration=side.generator.acceleration.options,
        guidance=dict(scale=guidance.scale, channels=guidance.channels, interval=guidance.interval),
        calls=side.num_calls,
        nfe=side.nfe,
        gmacs_per_sample=side.macs_per_sample / 1e9,
        samples_per_second=spread(per_second),
        tmacs_per_second=achieved / 1e12,
        share_of_matrix_rate=achieved / rate,
        peak_memory_gib=peak / 2**30,
        stages=stages,
    )

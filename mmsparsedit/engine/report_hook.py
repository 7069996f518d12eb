"""What a person sees of a run: one line of progress, and at the end where things are."""

import sys
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook

from mmsparsedit.evaluation.recipe import build_recipe, write_result
from mmsparsedit.models.cost import model_cost
from mmsparsedit.registry import HOOKS

from .sample_grid_hook import SampleGridHook
from .test_loop import sampling_recipe
from .throughput_hook import ThroughputHook

SMOOTHING = 100  # iterations whose mean loss is shown


@HOOKS.register_module()
class ReportHook(Hook):
    """Progress on the console, metrics as JSON, and a closing list of results.

    On a terminal the line is rewritten in place; elsewhere (a log of a scheduler) one is printed
    every ``interval`` seconds. Metrics of a validation go to ``WORK_DIR/metrics.json``, of a test
    to ``out``.

    Args:
        out: file of a test's metrics; None for ``WORK_DIR/metrics.json``.
        interval: seconds between lines where there is no terminal.
    """

    priority = 'VERY_LOW'

    def __init__(self, out: str | None = None, interval: float = 10.0) -> None:
        self.out = out
        self.interval = interval
        self._metrics_file: Path | None = None
        self._metrics: dict = {}
        self._line = ''

    # -- training -------------------------------------------------------------------------------

    def before_train(self, runner) -> None:
        self._begin()
        self._first_iter = runner.iter
        if is_main_process():
            self._print(f'training {runner.experiment_name} -> {runner.work_dir}')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        last = self.is_last_train_iter(runner)
        if not self._due(last):
            return
        done, total = runner.iter + 1, runner.max_iters
        speed = [h.images_per_second for h in runner.hooks if isinstance(h, ThroughputHook)]
        images = f'  {speed[0]:,.0f} img/s' if speed and speed[0] else ''
        # of one batch it says little: a stage near noise has a hundredth of the loss of a clean one
        history = runner.message_hub.log_scalars.get('train/loss')  # none before it is first logged
        loss = f'  loss {history.mean(SMOOTHING):.4f}' if history else ''
        eta = self._eta(done - self._first_iter, total - done)
        self._show(f'{_bar(done, total)} {done}/{total}{loss}{images}  {eta}', last)

    # -- sampling -------------------------------------------------------------------------------

    def before_val_epoch(self, runner) -> None:
        self._begin()
        self._sampled = 0
        self._asked = len(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner) -> None:
        self._begin()
        self._sampled = 0
        self._asked = len(runner.test_dataloader.dataset)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._sampled = min(self._asked, self._sampled + len(outputs) * get_world_size())
        last = self._sampled >= self._asked
        if self._due(last):
            speed = self._sampled / (time.perf_counter() - self._began)
            eta = self._eta(self._sampled, self._asked - self._sampled)
            self._show(
                f'{_bar(self._sampled, self._asked)} sampled {self._sampled}/{self._asked}  '
                f'{speed:,.1f} img/s  {eta}',
                last,
            )

    after_val_iter = after_test_iter

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self._record(runner, metrics, Path(runner.work_dir) / 'metrics.json')

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        default = Path(runner.work_dir) / 'metrics.json'
        self._record(runner, metrics, Path(self.out) if self.out else default)

    def _record(self, runner, metrics: dict | None, path: Path) -> None:
        if not is_main_process() or metrics is None:
            return
        try:
            metrics.update(cost_metrics(runner.bare_model))
        except ValueError as error:
            runner.logger.warning(f'no cost among the metrics: {error}')
        self._metrics = dict(metrics)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_result(path, self._metrics, self._recipe(runner))
        self._metrics_file = path

    def _recipe(self, runner) -> dict:
        loop = runner.val_loop if runner._test_loop is None else runner.test_loop
        return build_recipe(
            config=_deciding_part(runner.cfg),
            checkpoint=runner._load_from if runner._train_loop is None else None,
            sampling=sampling_recipe(runner),
            metrics=loop.evaluator.metrics,
        )

    # -- the end --------------------------------------------------------------------------------

    def after_run(self, runner) -> None:
        if not is_main_process():
            return
        rows = [(key, f'{value:.6g}') for key, value in sorted(self._metrics.items())]
        speed = [h.images_per_second for h in runner.hooks if isinstance(h, ThroughputHook)]
        if self._metrics and speed and speed[0]:
            rows.append(('sampled', f'{speed[0]:.4g} images/s'))
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.last_ckpt:
                rows.append(('checkpoint', hook.last_ckpt))
            if isinstance(hook, SampleGridHook) and hook.last_picture:
                rows.append(('pictures', str(hook.last_picture)))
        if self._metrics_file:
            rows.append(('metrics', str(self._metrics_file)))
        rows.append(('log', str(Path(runner._log_dir) / f'{runner.timestamp}.log')))
        width = max(len(key) for key, _ in rows)
        for key, value in rows:
            self._print(f'{key:<{width}}  {value}')

    # -- the line -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._began = self._shown_at = time.perf_counter()

    def _due(self, last: bool) -> bool:
        if not is_main_process():
            return False
        wait = 0.5 if sys.stdout.isatty() else self.interval
        return last or time.perf_counter() - self._shown_at >= wait

    def _eta(self, done: int, left: int) -> str:
        seconds = int((time.perf_counter() - self._began) / max(done, 1) * left)
        return f'ETA {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'

    def _show(self, line: str, last: bool) -> None:
        self._shown_at = time.perf_counter()
        if sys.stdout.isatty():
            sys.stdout.write('\r' + line.ljust(len(self._line)) + ('\n' if last else ''))
            sys.stdout.flush()
            self._line = '' if last else line
        else:
            self._print(line)

    @staticmethod
    def _print(line: str) -> None:
        sys.stdout.write(line + '\n')
        sys.stdout.flush()


def _deciding_part(config: Config) -> Config:
    """What of a config decides a result: not where it is written, nor by how many processes."""
    kinds = ('model', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator')
    kept = {key: config[key] for key in kinds if config.get(key) is not None}
    return Config(kept, filename=config.filename)


def cost_metrics(generator) -> dict[str, float]:
    """GMACs of one network call: per stage, mean over t, mean over the sampler's own calls; network
    evaluations of one sample, and its GMACs with guidance and step cache."""
    cost = model_cost(generator)
    metrics = {
        'cost/nfe': float(cost['sampler']['nfe']),
        'cost/gmacs_per_sample': cost['sampler']['gmacs_per_sample'],
        'cost/gmacs_mean_t': cost['mean_t']['gmacs'],
        'cost/gmacs_mean_sampler': cost['mean_sampler']['gmacs'],
    }
    if generator.prune is not None:
        for i, stage in enumerate(cost['stages']):
            metrics[f'cost/gmacs_stage{i}'] = stage['gmacs']
    return metrics


def _bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // total
    return '[' + '#' * filled + '-' * (width - filled) + ']'

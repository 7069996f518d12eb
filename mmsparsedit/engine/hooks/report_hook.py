"""What a person sees of a run: a line of progress, a file of metrics, and where things are."""

from pathlib import Path

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook

from mmsparsedit.registry import HOOKS

from ..progress import ProgressLine, say
from ..results import write_metrics
from .sample_grid_hook import SampleGridHook
from .throughput_hook import ThroughputHook

SMOOTHING = 100  # iterations whose mean loss is shown


@HOOKS.register_module()
class ReportHook(Hook):
    """Progress on the console, metrics as JSON, and a closing list of results.

    Metrics of a validation go to ``WORK_DIR/metrics.json``, of a test to ``out``.

    Args:
        out: file of a test's metrics; None for ``WORK_DIR/metrics.json``.
    """

    priority = 'VERY_LOW'

    def __init__(self, out: str | None = None) -> None:
        self.out = out
        self._metrics_file: Path | None = None
        self._metrics: dict = {}

    def before_train(self, runner) -> None:
        self._training = ProgressLine(runner.max_iters, runner.iter)
        if is_main_process():
            say(f'training {runner.experiment_name} -> {runner.work_dir}')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        done = runner.iter + 1
        if not is_main_process() or not self._training.due(done):
            return
        # of one batch it says little: a stage near noise has a hundredth of the loss of a clean one
        history = runner.message_hub.log_scalars.get('train/loss')  # none before it is first logged
        loss = f'  loss {history.mean(SMOOTHING):.4f}' if history else ''
        speed = _images_per_second(runner)
        self._training.show(done, after=loss + (f'  {speed:,.0f} img/s' if speed else ''))

    def before_val_epoch(self, runner) -> None:
        self._sampling, self._sampled = ProgressLine(len(runner.val_dataloader.dataset)), 0

    def before_test_epoch(self, runner) -> None:
        self._sampling, self._sampled = ProgressLine(len(runner.test_dataloader.dataset)), 0

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        line = self._sampling
        self._sampled = done = min(line.total, self._sampled + len(outputs) * get_world_size())
        if is_main_process() and line.due(done):
            line.show(done, before='sampled ', after=f'  {line.rate(done):,.1f} img/s')

    after_val_iter = after_test_iter

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self._record(runner, metrics, Path(runner.work_dir) / 'metrics.json')

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        self._record(runner, metrics, Path(self.out or Path(runner.work_dir) / 'metrics.json'))

    def _record(self, runner, metrics: dict | None, path: Path) -> None:
        if is_main_process() and metrics is not None:
            write_metrics(runner, metrics, path)
            self._metrics, self._metrics_file = dict(metrics), path

    def after_run(self, runner) -> None:
        """Say what came out and where it is."""
        if not is_main_process():
            return
        rows = [(key, f'{value:.6g}') for key, value in sorted(self._metrics.items())]
        speed = _images_per_second(runner)
        if self._metrics and speed:
            rows.append(('sampled', f'{speed:.4g} images/s'))
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
            say(f'{key:<{width}}  {value}')


def _images_per_second(runner) -> float | None:
    hooks = [hook for hook in runner.hooks if isinstance(hook, ThroughputHook)]
    return hooks[0].images_per_second if hooks else None

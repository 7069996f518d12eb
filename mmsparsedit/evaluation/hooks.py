"""FID or FVD during training: EMA weights, a list of requests, the code of the final metrics."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.device import is_cuda_available
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmsparsedit.registry import HOOKS, METRICS, SCOPE


class SampleMetricHook(Hook):
    """Every k iterations: sample a list of requests with the EMA weights and evaluate them.

    The best checkpoint by the named number is kept as ``best_<name>_iter_<n>.pth``; its value and
    name are part of the checkpoint's message hub, so a resumed run goes on comparing. The state of
    the random number generators is left as it was found: training goes on as without the hook.

    Args:
        interval: iterations between evaluations.
        dataloader: of the requests; its sampler should be
            ``dict(type='DefaultSampler', shuffle=False, round_up=False)``.
        metric: config of the metric; its keys go to the log under ``samples/``.
        indicator: last part of the key of the number that chooses the best checkpoint; lower is
            better.
        save_best: keep the best checkpoint.
        at_end: evaluate after the last iteration as well if the interval does not hit it.
    """

    # after EMAHook (NORMAL) has taken in the iteration, before CheckpointHook (VERY_LOW) saves it
    priority = 'LOW'

    def __init__(
        self,
        interval: int,
        dataloader: dict,
        metric: dict,
        indicator: str,
        save_best: bool = True,
        at_end: bool = True,
    ) -> None:
        if interval < 1:
            raise ValueError(f'got interval {interval}, expected at least 1 iteration')
        self.interval = interval
        self.dataloader = dataloader
        self.metric = metric
        self.indicator = indicator
        self.save_best = save_best
        self.at_end = at_end
        self._evaluator: Evaluator | None = None

    def before_train(self, runner: Runner) -> None:
        """Build metric and requests, so that a missing file stops the run before it starts."""
        self._evaluator = Evaluator([METRICS.build({'_scope_': SCOPE, **self.metric})])
        self._loader = runner.build_dataloader(self.dataloader, seed=runner.seed)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Evaluate if the interval says so."""
        last = self.at_end and runner.iter + 1 == runner.max_iters
        if last or self.every_n_train_iters(runner, self.interval):
            self.evaluate(runner)

    def evaluate(self, runner: Runner) -> dict:
        """Sample, evaluate, log and keep the best checkpoint; returns the metrics."""
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        training = runner.model.training
        devices = [torch.cuda.current_device()] if is_cuda_available() else []
        for hook in averages:
            hook.before_val_epoch(runner)
        runner.model.eval()
        try:
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                for batch in self._loader:
                    self._evaluator.process(runner.model.val_step(batch), batch)
                metrics = self._evaluator.evaluate(len(self._loader.dataset))
        finally:
            runner.model.train(training)
            for hook in averages:
                hook.after_val_epoch(runner)
        self._log(runner, metrics)
        if self.save_best:
            self._keep_best(runner, metrics)
        return metrics

    def _log(self, runner: Runner, metrics: dict) -> None:
        step = runner.iter + 1
        text = '  '.join(f'{key}: {value:.4f}' for key, value in metrics.items())
        runner.logger.info(f'{type(self).__name__} at iteration {step}: {text}')
        scalars = {f'samples/{key}': value for key, value in metrics.items()}
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars(scalars, step=step)

    def _keep_best(self, runner: Runner, metrics: dict) -> None:
        found = [value for key, value in metrics.items() if key.split('/')[-1] == self.indicator]
        if len(found) != 1:
            raise ValueError(
                f'got the metrics {sorted(metrics)}, expected one that ends in {self.indicator}: '
                'add it to the metrics of the hook or set save_best=False'
            )
        hub, name = runner.message_hub, f'best_{self.indicator}'
        if found[0] >= hub.runtime_info.get(name, math.inf):
            return
        before = hub.runtime_info.get(f'{name}_checkpoint')
        file = f'{name}_iter_{runner.iter + 1}.pth'
        hub.update_info(name, found[0])
        hub.update_info(f'{name}_checkpoint', file)
        runner.save_checkpoint(runner.work_dir, file, by_epoch=False)
        if before is not None and before != file:
            self._remove(runner, before)

    def _remove(self, runner: Runner, file: str) -> None:
        if is_main_process():
            (Path(runner.work_dir) / file).unlink(missing_ok=True)


@HOOKS.register_module()
class FIDHook(SampleMetricHook):
    """FID and what else :class:`ADMMetrics` is asked for, every k iterations; best by ``fid``.

    ``metric`` are arguments of :class:`ADMMetrics`, for instance
    ``dict(reference='data/reference.npz', metrics=('fid',))``.
    """

    def __init__(
        self,
        interval: int,
        dataloader: dict,
        metric: dict,
        save_best: bool = True,
        at_end: bool = True,
    ) -> None:
        metric = {'type': 'ADMMetrics', 'metrics': ('fid',), **metric}
        super().__init__(interval, dataloader, metric, 'fid', save_best, at_end)


@HOOKS.register_module()
class FVDHook(SampleMetricHook):
    """FVD every k iterations; best by ``fvd``. ``metric`` are arguments of :class:`FVD`."""

    def __init__(
        self,
        interval: int,
        dataloader: dict,
        metric: dict,
        save_best: bool = True,
        at_end: bool = True,
    ) -> None:
        super().__init__(interval, dataloader, {'type': 'FVD', **metric}, 'fvd', save_best, at_end)

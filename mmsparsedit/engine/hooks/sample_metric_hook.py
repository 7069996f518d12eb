"""FID or FVD during training: EMA weights, a list of requests, the code of the final metrics."""

import math
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner, ValLoop

from mmsparsedit.registry import HOOKS, METRICS, SCOPE

from ..divergence import check_weights
from ..ema import averaged_weights


class SampleMetricHook(Hook):
    """Every k iterations: sample a list of requests with the EMA weights and evaluate them.

    It is a second ``ValLoop``, beside the one of ``val_cfg`` and heard by no other hook. Training
    goes on as without it: weights, mode and random state are left as they were found.

    The best checkpoint by ``indicator`` is kept as ``best_<indicator>_iter_<n>.pth``; its value and
    name are part of the checkpoint's message hub, so a resumed run goes on comparing. It can be
    resumed from and leaves the others alone, where ``CheckpointHook.save_best`` leaves the
    optimizer out and writes the newest checkpoint again.

    Args:
        interval: iterations between evaluations.
        dataloader: of the requests; its sampler should be
            ``dict(type='DefaultSampler', shuffle=False, round_up=False)``.
        metric: config of the metric; its keys go to the log under ``samples/``.
        save_best: keep the best checkpoint.
        at_end: evaluate after the last iteration as well if the interval does not hit it.
    """

    # after EMAHook (NORMAL) has taken in the iteration, before CheckpointHook (VERY_LOW) saves it
    priority = 'LOW'
    # of a subclass: what ``metric`` need not say, and the last part of the key of the number that
    # chooses the best checkpoint; lower is better
    defaults: dict = {}
    indicator: str

    def __init__(
        self,
        interval: int,
        dataloader: dict,
        metric: dict,
        save_best: bool = True,
        at_end: bool = True,
    ) -> None:
        if interval < 1:
            raise ValueError(f'got interval {interval}, expected at least 1 iteration')
        self.interval = interval
        self.dataloader = dataloader
        self.metric = {**self.defaults, **metric}
        self.save_best = save_best
        self.at_end = at_end

    def before_train(self, runner: Runner) -> None:
        """Build metric and requests, so that a missing file stops the run before it starts."""
        evaluator = Evaluator([METRICS.build({'_scope_': SCOPE, **self.metric})])
        self._loop = ValLoop(_Unheard(runner), self.dataloader, evaluator)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Evaluate if the interval says so."""
        last = self.at_end and self.is_last_train_iter(runner)
        if last or self.every_n_train_iters(runner, self.interval):
            self.evaluate(runner)

    def evaluate(self, runner: Runner) -> dict:
        """Sample, evaluate, log and keep the best checkpoint; returns the metrics."""
        with averaged_weights(runner):
            metrics = self._loop.run()
        step = runner.iter + 1
        text = '  '.join(f'{key}: {value:.4f}' for key, value in metrics.items())
        runner.logger.info(f'{type(self).__name__} at iteration {step}: {text}')
        scalars = {f'samples/{key}': value for key, value in metrics.items()}
        runner.message_hub.update_scalars(scalars)
        runner.visualizer.add_scalars(scalars, step=step)
        if self.save_best:
            self._keep_best(runner, metrics)
        return metrics

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
        # a name of this folder, whatever a checkpoint says
        before = Path(str(hub.runtime_info.get(f'{name}_checkpoint', ''))).name
        file = f'{name}_iter_{runner.iter + 1}.pth'
        hub.update_info(name, found[0])
        hub.update_info(f'{name}_checkpoint', file)
        check_weights(runner)
        runner.save_checkpoint(runner.work_dir, file, by_epoch=False)
        if before.startswith(name) and before != file and is_main_process():
            (Path(runner.work_dir) / before).unlink(missing_ok=True)


class _Unheard:
    """A runner whose hooks are not called: they follow the validation that ``val_cfg`` names."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def call_hook(self, fn_name: str, **kwargs) -> None:
        pass


@HOOKS.register_module()
class FIDHook(SampleMetricHook):
    """FID and what else :class:`ADMMetrics` is asked for, every k iterations; best by ``fid``.

    ``metric`` are arguments of :class:`ADMMetrics`, for instance
    ``dict(reference='data/reference.npz', metrics=('fid',))``.
    """

    defaults = dict(type='ADMMetrics', metrics=('fid',))
    indicator = 'fid'


@HOOKS.register_module()
class FVDHook(SampleMetricHook):
    """FVD every k iterations; best by ``fvd``. ``metric`` are arguments of :class:`FVD`."""

    defaults = dict(type='FVD')
    indicator = 'fvd'

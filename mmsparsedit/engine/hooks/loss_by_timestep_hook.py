"""The loss by timestep and by stage: where on the way from noise to data a model is weak."""

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from mmsparsedit.registry import HOOKS

from ..bare import bare_model


@HOOKS.register_module()
class LossByTimestepHook(Hook):
    """Logs the mean squared error by timestep and by stage, over all processes.

    Keys: ``mse_t0``, ``mse_t1``, ... for ``num_bins`` equal ranges of t from clean to noisy, and
    ``mse_stage0``, ... for the stages of the prune schedule. Each is a mean over the samples of a
    window of ``interval`` iterations; a range that no sample fell into is left out.
    """

    priority = 'HIGH'  # before the logger

    def __init__(self, interval: int = 50, num_bins: int = 10) -> None:
        if interval < 1 or num_bins < 1:
            raise ValueError(
                f'interval and num_bins must be at least 1, got {interval} and {num_bins}.'
            )
        self.interval = interval
        self.num_bins = num_bins
        self._sums: dict[str, torch.Tensor] = {}

    def before_train(self, runner) -> None:
        model = bare_model(runner)
        T = model.diffusion.num_train_timesteps
        edges = {'t': [T * i / self.num_bins for i in range(1, self.num_bins)]}
        if model.prune is not None:
            edges['stage'] = [stage.t_start for stage in model.prune.stages[1:]]
        device = next(model.parameters()).device
        self._edges = {
            kind: torch.tensor(values, device=device, dtype=torch.float32)
            for kind, values in edges.items()
        }
        self._clear()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        t, mse = bare_model(runner).last_errors
        for kind, edges in self._edges.items():
            bins = torch.bucketize(t.float(), edges, right=True)
            self._sums[kind][0].index_add_(0, bins, mse)
            self._sums[kind][1].index_add_(0, bins, torch.ones_like(mse))
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return
        for kind, sums in self._sums.items():
            all_reduce(sums)
            for i, (total, count) in enumerate(sums.T.tolist()):
                if count:
                    runner.message_hub.update_scalar(f'train/mse_{kind}{i}', total / count)
        self._clear()

    def _clear(self) -> None:
        self._sums = {
            kind: torch.zeros(2, len(edges) + 1, device=edges.device)
            for kind, edges in self._edges.items()
        }

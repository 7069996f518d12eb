"""MMEngine's ``CheckpointHook`` that never trades a sound file for an unsound one."""

import os
from collections import deque
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from torch.distributed.tensor import DTensor

from mmsparsedit.registry import HOOKS
from mmsparsedit.utils.files import clear_parts

from ..checkpoint_files import point_to
from ..divergence import check_weights


@HOOKS.register_module()
class CheckpointHook(StockCheckpointHook):
    """The stock hook, with the life of a checkpoint in one order: check, publish, point, prune.

    * weights, averages or optimizer state that are not finite are not saved: ``DivergenceError``;
    * the processes compare a sum of their weights before one of them saves;
    * an older checkpoint, the best one included, is removed when the new one is whole on the disk;
    * ``last_checkpoint`` is replaced, not rewritten;
    * what killed writers left is removed before training;
    * names of files that a checkpoint carries are looked up in this work dir only.
    """

    def before_train(self, runner) -> None:
        info = runner.message_hub.runtime_info
        if 'keep_ckpt_ids' in info:
            info['keep_ckpt_ids'] = [i for i in info['keep_ckpt_ids'] if type(i) is int]
        folder = Path(self.out_dir or runner.work_dir)
        for key in [key for key in info if key.startswith('best_ckpt')]:
            name = Path(str(info[key])).name  # the folder may have been moved since
            info[key] = str(folder / name) if name.startswith('best_') else None
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)  # one more while the new one is written
        if is_main_process():
            left = clear_parts(self.out_dir)
            if left:
                runner.logger.info(f'removed {len(left)} unfinished files of killed writers')

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        check_weights(runner)
        check_agreement(runner.model)
        ids = self.keep_ckpt_ids if self.max_keep_ckpts > 0 else None
        if ids is not None and (not ids or ids[-1] != step):
            ids.append(step)
            # a run that is killed before it prunes prunes when it goes on (the stock before_train)
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))
        before, name = self.last_ckpt, self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        except BaseException:
            self.last_ckpt = before
            raise
        if is_main_process():
            point_to(runner.work_dir, self.last_ckpt)
        while ids is not None and len(ids) > self.max_keep_ckpts:
            old = os.path.join(self.out_dir, self.filename_tmpl.format(ids.popleft()))
            if is_main_process():
                Path(old).unlink(missing_ok=True)
        if ids is not None:
            runner.message_hub.update_info('keep_ckpt_ids', list(ids))

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        check_weights(runner)
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.remove_now()


def save_now(runner, why: str, done: int) -> None:
    """Save amid a training, between two iterations; all processes call it.

    Args:
        done: iterations that are done.
    """
    loop = runner.train_loop
    for hook in runner.hooks:
        if isinstance(hook, StockCheckpointHook):
            # the hook numbers a checkpoint by the iteration that the loop is in
            counted, loop._iter = loop._iter, done - 1
            try:
                hook._save_checkpoint(runner)
            finally:
                loop._iter = counted
            runner.logger.warning(
                f'{why}: saved {hook.last_ckpt} after iteration {done} of {runner.max_iters}; '
                'continue with --resume.'
            )


class _RemovesLater:
    """A file backend that keeps what it is told to remove until the next file is whole."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self._later: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._later.append(path)

    def remove_now(self) -> None:
        while self._later:
            Path(self._later.pop()).unlink(missing_ok=True)


def check_agreement(model: torch.nn.Module) -> None:
    """Raise ``RuntimeError`` unless all processes hold the same weights; one all-reduce.

    Sharded weights are one copy: nothing to compare.
    """
    weights = [p.detach() for p in model.parameters()]
    if get_world_size() == 1 or any(isinstance(weight, DTensor) for weight in weights):
        return
    # bits read as whole numbers: sums of these are exact and the same in any order
    sums = torch.stack([_bits(weight).sum(dtype=torch.int64) for weight in weights])
    places = torch.arange(1, len(sums) + 1, device=sums.device)
    digest = (sums * places).sum()
    ends = torch.stack([digest, -digest])  # greatest, and least
    all_reduce(ends, 'max')
    if ends[0] != -ends[1]:
        raise RuntimeError(
            'the processes hold different weights: their gradients were not exchanged, or one '
            'of them computes wrongly. Nothing was saved; go on from the last checkpoint, and look '
            'at model_wrapper_cfg and at the devices.'
        )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds.get(tensor.element_size(), torch.uint8))

"""How fast a run is, and what it waits for."""

import time
from collections import Counter

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from mmsparsedit.models.cost import training_macs
from mmsparsedit.registry import HOOKS

from ..bare import bare_model


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs, over windows of iterations and all processes together:

    * ``images_per_second``;
    * ``data_wait``: share of time spent waiting for the next batch;
    * ``tmacs_per_second``: achieved multiply-accumulates, in training those of forward and
      backward (three forwards), of the grid that this process had.

    In test ``images_per_second`` covers sampling and decoding.

    Args:
        interval: iterations of a window; the device is waited for once per window.
    """

    priority = 'NORMAL'

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval
        self._macs: dict | None = None  # of an image, by grid; counted when a window is full
        self.images_per_second: float | None = None

    def before_train(self, runner) -> None:
        self._macs = None
        self._open_window()
        self._left = time.perf_counter()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._waited += time.perf_counter() - self._left

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        # drawn again: the draw is a pure function
        grid = bare_model(runner).training_grid(runner.seed, runner.iter)
        self._images[grid] += len(data_batch['inputs'])
        if self.every_n_inner_iters(batch_idx, self.interval):
            seconds = self._elapsed()
            self.images_per_second = self._images.total() * get_world_size() / seconds
            hub = runner.message_hub
            hub.update_scalar('train/images_per_second', self.images_per_second)
            hub.update_scalar('train/data_wait', self._waited / seconds)
            macs = self._count(runner)
            if macs:
                work = sum(images * macs[grid] for grid, images in self._images.items())
                rate = work * get_world_size() / seconds / 1e12
                hub.update_scalar('train/tmacs_per_second', rate)
            self._open_window()
        self._left = time.perf_counter()

    def _count(self, runner) -> dict:
        if self._macs is None:
            try:
                self._macs = training_macs(bare_model(runner))
            except ValueError as error:  # an operation of a user's own: no reason not to train
                runner.logger.warning(f'no MAC rate in the log: {error}')
                self._macs = {}
        return self._macs

    def before_test_epoch(self, runner) -> None:
        self._open_window()

    before_val_epoch = before_test_epoch

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._sampled += len(outputs)
        self._sampling_seconds = self._elapsed()

    after_val_iter = after_test_iter

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        if self._sampled:
            self.images_per_second = self._sampled * get_world_size() / self._sampling_seconds
            runner.logger.info(f'sampled {self.images_per_second:.3f} images/s')

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.after_test_epoch(runner, metrics)
        self._open_window()  # the time of a validation is none of training's
        self._left = time.perf_counter()

    def _elapsed(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - self._opened

    def _open_window(self) -> None:
        self._opened = time.perf_counter()
        self._images: Counter = Counter()  # by grid
        self._sampled, self._waited = 0, 0.0
        self._sampling_seconds = 0.0

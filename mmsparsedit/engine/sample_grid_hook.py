"""Looking at samples while a model trains, and after a test."""

from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook

from mmsparsedit.datasets.requests import SampleRequests
from mmsparsedit.registry import HOOKS

from .pictures import labelled_grid, save_image


@HOOKS.register_module()
class SampleGridHook(Hook):
    """Saves a labelled grid of samples of the averaged weights as PNG.

    In training the same requests are sampled every ``interval`` iterations, into ``WORK_DIR/samples``. In test and validation the first images of the run make the grid; with
    ``show_dir`` (``tools/test.py --show-dir``) every image is written too, its request inside.

    Args:
        interval: iterations between grids.
        num_samples: images of a grid.
        labels: of the grid in training, cycled through; by default 0, 1, 2, ...
        columns: of the grid.
        show_dir: folder for all images of a test.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1000,
        num_samples: int = 40,
        labels: list[int] | None = None,
        columns: int | None = None,
        show_dir: str | None = None,
    ) -> None:
        if interval < 1 or num_samples < 1:
            raise ValueError(
                f'interval and num_samples must be at least 1, got {interval} and {num_samples}.'
            )
        self.interval = interval
        self.num_samples = num_samples
        self.labels = labels
        self.columns = columns
        self.show_dir = show_dir
        self.last_picture: Path | None = None
        self._shown: list = []

    def before_train(self, runner) -> None:
        autoencoder = runner.bare_model.autoencoder
        if autoencoder is None or self.interval > runner.max_iters:
            return
        try:
            autoencoder.check()
        except FileNotFoundError as error:
            runner.logger.warning(f'no pictures while training from latents: {error}')
            self.interval = runner.max_iters + 1

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not is_main_process():
            return
        if self.every_n_train_iters(runner, self.interval):
            self._sample(runner)

    def _sample(self, runner) -> None:
        model = runner.bare_model
        classes = getattr(model.network, 'num_classes', None)
        labels = self.labels
        if labels is None and classes is not None:
            labels = list(range(min(classes, self.num_samples)))
        requests = SampleRequests(self.num_samples, classes, labels=labels)
        batch = torch.utils.data.default_collate([requests[i] for i in range(len(requests))])
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        for hook in averages:
            hook._swap_ema_parameters()
        model.eval()
        try:
            results = model.predict(**batch)
        finally:
            for hook in averages:
                hook._swap_ema_parameters()
            model.train()
        folder = Path(runner.work_dir) / 'samples'
        self._save_grid(folder / f'iter_{runner.iter + 1}.png', results)

    def before_test_epoch(self, runner) -> None:
        self._shown = []

    before_val_epoch = before_test_epoch

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.show_dir is not None:
            for result in outputs:
                path = Path(self.show_dir) / f'{result.index:06d}.png'
                request = {key: value for key, value in result.items() if key != 'image'}
                save_image(path, result.image, request)
        if is_main_process():
            self._shown += outputs[: max(0, self.num_samples - len(self._shown))]

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        if is_main_process() and self._shown and self.show_dir is not None:
            self._save_grid(Path(self.show_dir) / 'grid.png', self._shown)
        self._shown = []

    def _save_grid(self, path: Path, results: list) -> None:
        captions = [str(result.get('label', result.seed)) for result in results]
        path.parent.mkdir(parents=True, exist_ok=True)
        labelled_grid([result.image for result in results], captions, self.columns).save(path)
        self.last_picture = path

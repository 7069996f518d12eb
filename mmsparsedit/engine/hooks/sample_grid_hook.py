"""Looking at samples while a model trains, and after a test."""

import math
from pathlib import Path

import torch
from mmengine.dist import all_reduce, collect_results, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from PIL import Image

from mmsparsedit.datasets.requests import SampleRequests
from mmsparsedit.registry import HOOKS
from mmsparsedit.visualization import (
    contact_sheet,
    labelled_grid,
    save_gif,
    save_grid,
    save_mp4,
    show_picture,
)

from ..bare import bare_model
from ..ema import averaged_weights
from ..sampling import fewer_steps


@HOOKS.register_module()
class SampleGridHook(Hook):
    """Saves a labelled grid of samples of the averaged weights as PNG.

    In training the same requests are sampled every ``interval`` iterations, into
    ``WORK_DIR/samples`` and, as ``samples``, to the visualizer's backends that show pictures
    (TensorBoard, WandB, MLflow). The processes share them, all with equally many, and a GPU samples
    in bf16. With ``show_dir`` (``tools/test.py --show-dir``) the first samples
    of a test make one too.

    Args:
        interval: iterations between grids.
        num_samples: images of a grid.
        labels: of the grid in training, cycled through; by default 0, 1, 2, ...
        prompts: of the grid in training, cycled through, for generators of images from text.
        columns: of the grid.
        num_steps: of the sampler for the grids of a training, if it has more.
        cell: smallest width of an image in the grid, which its caption has to fit into.
        show_dir: folder for the grid of a test, and for its videos as mp4 and GIF.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1000,
        num_samples: int = 40,
        labels: list[int] | None = None,
        prompts: list[str] | None = None,
        columns: int | None = None,
        num_steps: int | None = None,
        cell: int = 64,
        show_dir: str | None = None,
    ) -> None:
        if interval < 1 or num_samples < 1:
            raise ValueError(
                f'interval and num_samples must be at least 1, got {interval} and {num_samples}.'
            )
        self.interval = interval
        self.num_samples = num_samples
        self.labels = labels
        self.prompts = prompts
        self.columns = columns
        self.num_steps = num_steps
        self.cell = cell
        self.show_dir = show_dir
        self.last_picture: Path | None = None

    def before_train(self, runner) -> None:
        autoencoder = bare_model(runner).autoencoder
        if autoencoder is None or self.interval > runner.max_iters:
            return
        missing = torch.zeros((), dtype=torch.int64)
        try:
            autoencoder.check()
            if self.prompts:
                bare_model(runner).text_encoder.check()
        except FileNotFoundError as error:
            runner.logger.warning(f'no pictures while training from latents: {error}')
            missing += 1
        all_reduce(missing, 'max')  # the processes sample together
        if missing:
            self.interval = runner.max_iters + 1

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._sample(runner)

    def _sample(self, runner) -> None:
        model = bare_model(runner)
        classes = getattr(model.network, 'num_classes', None)
        labels = self.labels
        if labels is None and classes is not None:
            labels = list(range(min(classes, self.num_samples)))
        requests = SampleRequests(self.num_samples, classes, labels=labels)
        # as many for each process: those of a sharded network run it together
        rank, world = get_dist_info()
        share = range(rank, world * math.ceil(len(requests) / world), world)
        share = [i % len(requests) for i in share]
        batch = torch.utils.data.default_collate([requests[i] for i in share])
        if self.prompts:
            batch['prompt'] = [self.prompts[i % len(self.prompts)] for i in share]
        cast = torch.autocast('cuda', torch.bfloat16, enabled=torch.cuda.is_available())
        with averaged_weights(runner), fewer_steps(runner, self.num_steps), cast:
            results = model.predict(**batch)
        results = collect_results(results, len(requests), 'gpu')  # in order, without the surplus
        if results is not None:
            folder = Path(runner.work_dir) / 'samples'
            grid = self._save_grid(folder / f'iter_{runner.iter + 1}.png', results)
            show_picture(runner.visualizer, 'samples', grid, runner.iter + 1)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Videos are written as videos too; the test loop keeps their frames."""
        for result in outputs if self.show_dir is not None else ():
            if 'video' in result:
                path = Path(self.show_dir) / f'{result.index:06d}'
                request = {k: v for k, v in result.items() if k != 'video'}
                save_mp4(path.with_suffix('.mp4'), result.video, request=request)
                save_gif(path.with_suffix('.gif'), result.video)

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        if self.show_dir is None or not is_main_process():
            return
        store = runner.test_loop.store
        first = store.indices()[: self.num_samples]
        results = [BaseDataElement(**sample) for sample in store.samples(first)]
        self._save_grid(Path(self.show_dir) / 'grid.png', results)

    def _save_grid(self, path: Path, results: list) -> Image.Image:
        captions = [
            str(result.get('prompt', result.get('label', result.seed))) for result in results
        ]
        if 'video' in results[0]:
            videos = [result.video for result in results]
            grid = contact_sheet(videos, captions, columns=self.columns or 1)
        else:
            images = [result.image for result in results]
            grid = labelled_grid(images, captions, self.columns, self.cell)
        save_grid(path, grid)
        self.last_picture = path
        return grid

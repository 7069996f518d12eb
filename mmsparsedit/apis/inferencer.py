"""Samples in a line of Python, by MMEngine's conventions of inferencers."""

import copy
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.structures import BaseDataElement

from mmsparsedit.visualization import contact_sheet, labelled_grid, save_grid
from mmsparsedit.visualization.pictures import to_pil

from .budget import Budgets
from .inference import (
    check_requests,
    choose_sampler,
    describe_request,
    generate,
    init_model,
    make_requests,
    save_sample,
    set_sampler,
)
from .launch import load_config


class Samples(list):
    """Pictures in the order of the requests; a notebook shows them as a labelled grid.

    An image is a ``PIL.Image``, a video an array (F, H, W, C) uint8. ``samples['predictions']``,
    the requests as dicts, and ``samples['visualization']``, the pictures, are MMEngine's names.

    Attributes:
        elements: ``BaseDataElement`` of each, with the tensor and the request.
    """

    def __init__(self, elements: Sequence[BaseDataElement]) -> None:
        self.elements = list(elements)
        super().__init__(
            to_pil(each.image) if 'image' in each else each.video.permute(0, 2, 3, 1).numpy()
            for each in self.elements
        )

    def __getitem__(self, key):
        if key == 'visualization':
            return list(self)
        if key == 'predictions':
            return [describe_request(each) for each in self.elements]
        return super().__getitem__(key)

    def grid(self, columns: int | None = None):
        """A ``PIL.Image`` of all under their requests; of videos a row of frames each."""
        requests = [describe_request(each) for each in self.elements]
        captions = [
            f'{asked.get("prompt", asked.get("label", ""))} #{asked["seed"]}'.strip()
            for asked in requests
        ]
        if 'video' in self.elements[0]:
            return contact_sheet([each.video for each in self.elements], captions)
        if columns is None:
            seeds = len({asked['seed'] for asked in requests})
            columns = seeds if 1 < seeds <= 16 else None
        cell = 240 if 'prompt' in requests[0] else 64  # a caption is to be read
        return labelled_grid([each.image for each in self.elements], captions, columns, cell)

    def _repr_png_(self) -> bytes | None:
        if not self:
            return None
        file = io.BytesIO()
        self.grid().save(file, 'PNG')
        return file.getvalue()


class DiffusionInferencer(BaseInferencer):
    """Samples of a generator for labels, prompts and seeds.

        inferencer = DiffusionInferencer('sparsedit/xl_256', 'checkpoint.pth')
        images = inferencer(labels=[207, 88], seeds=[0, 1], num_steps=25)  # four PIL images

    Every sample is a function of its request, (seed, label or prompt): it depends neither on the
    others nor on the batch size. ``tools/sample.py`` samples through this class.

    Args:
        model: config file, name of a config of the package, or loaded config.
        weights: anything that ``load_pretrained`` takes; None keeps random weights, with a warning.
        device: by default MMEngine's, a GPU where there is one.
        show_progress: whether calls show a bar.

    Raises:
        FileNotFoundError, ValueError: no such config or checkpoint; weights that do not fit.
    """

    preprocess_kwargs = {'labels', 'prompts', 'seeds'}
    forward_kwargs = {'sampler', 'num_steps', 'cfg_scale', 'budget', 'progress'}
    visualize_kwargs: set = set()
    postprocess_kwargs = {'out_dir'}

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        scope: str | None = 'mmsparsedit',
        show_progress: bool = True,
    ) -> None:
        if model is None:
            raise ValueError(
                'name the config: the one in a checkpoint would be run as code. Training left it '
                'in the work dir, beside the checkpoint.'
            )
        config = load_config(os.fspath(model)) if isinstance(model, str | os.PathLike) else model
        self._names = dict(
            config=Path(config.filename).name if config.get('filename') else None,
            checkpoint=None if weights is None else Path(weights).name,
        )
        super().__init__(config, weights, device, scope, show_progress)

    def __call__(
        self,
        inputs=None,
        return_datasamples: bool = False,
        batch_size: int = 16,
        **kwargs,
    ) -> Samples | list[BaseDataElement]:
        """Sample all labels or prompts with all seeds, conditions first.

        Args:
            inputs: instead of ``labels`` or ``prompts``: labels, prompts, or whole requests such
                as ``dict(label=3, seed=7)``.
            labels: of classes; one or several.
            prompts: of text to image; one or several.
            seeds: of the noise; one or several (default 0).
            sampler, num_steps, cfg_scale: for this call, as ``choose_sampler`` takes them.
            budget: for this call, of an elastic model: share of the dense model's MACs
                (``Budgets``); ``inferencer.budget`` says what came of it.
            batch_size: samples at a time.
            out_dir: folder to save each sample into as it is finished, a PNG or mp4 that carries
                its request, and a labelled ``grid.png`` at the end.
            progress: called with the number of finished samples, in place of the bar.
            return_datasamples: give the ``BaseDataElement`` of each.

        Raises:
            ValueError: a label that the network does not have; nothing said of what to sample; an
                unknown argument, sampler or setting.
        """
        asked, sampling, _, output = self._dispatch_kwargs(**kwargs)
        requests = self.preprocess(inputs, **asked)
        elements = []
        out_dir = output.get('out_dir')
        for element in self.forward(requests, batch_size=batch_size, **sampling):
            if out_dir is not None:
                save_sample(out_dir, element, self.setting)
            elements.append(element)
        return self.postprocess(elements, self.visualize(requests, elements), return_datasamples,
                                out_dir=out_dir)  # fmt: skip

    def preprocess(self, inputs=None, labels=None, prompts=None, seeds=0) -> list[dict]:
        """The requests of a call, checked before any work."""
        if inputs is not None:
            if labels is not None or prompts is not None:
                raise ValueError('give inputs, labels or prompts, one of them.')
            inputs = list(inputs) if isinstance(inputs, list | tuple | range) else [inputs]
            if inputs and isinstance(inputs[0], dict):
                check_requests(self.model, inputs)
                return inputs
            prompts, labels = (inputs, None) if isinstance(inputs[0], str) else (None, inputs)
        requests = make_requests(labels, prompts, seeds)
        check_requests(self.model, requests)
        return requests

    def forward(
        self,
        requests: Sequence[dict],
        batch_size: int = 16,
        sampler: str | None = None,
        num_steps: int | None = None,
        cfg_scale: float | None = None,
        budget: float | None = None,
        progress: Callable[[int], None] | None = None,
    ):
        """Samples, one after another as their batches are finished."""
        from rich.progress import track

        chosen = copy.deepcopy(self.cfg.model)
        choose_sampler(chosen, sampler, num_steps, cfg_scale)
        self.budget = None if budget is None else Budgets(chosen).choose(budget)
        if self.budget is not None:
            chosen.prune = self.budget.prune
        set_sampler(self.model, chosen)
        self.setting = dict(
            sampler=dict(chosen.sampler), cfg_scale=self.model.guidance.scale, **self._names
        )
        if self.budget is not None:
            self.setting |= dict(budget=self.budget.share, grids=self.budget.grids)
        samples = generate(self.model, requests, batch_size, progress)
        bar = self.show_progress and progress is None
        return track(samples, 'Sampling', total=len(requests)) if bar else samples

    def visualize(self, inputs: list, preds: list, show: bool = False) -> Samples:
        """The pictures of samples."""
        return Samples(preds)

    def postprocess(
        self, preds: list, visualization: Samples, return_datasample: bool = False, out_dir=None
    ) -> Samples | list[BaseDataElement]:
        """The pictures, or the elements; the grid where a folder is given."""
        if out_dir is not None and preds:
            save_grid(Path(out_dir) / 'grid.png', visualization.grid())
        return list(preds) if return_datasample else visualization

    def _init_model(self, cfg, weights, device='cpu'):
        if weights is None:
            import warnings

            warnings.warn('no weights: the samples are those of a random network', stacklevel=3)
        return init_model(cfg, weights, device)

    def _init_pipeline(self, cfg):
        return dict

    def _init_collate(self, cfg):
        return torch.utils.data.default_collate

    def _init_visualizer(self, cfg) -> None:
        return None

"""What metrics of generated samples share: checks, positions, one result for all processes.

A sample is a dict: ``image`` uint8 (C, H, W) or ``video`` uint8 (F, C, H, W), and ``index``, its
position in the list of requests. The index orders the splits of the inception score, so that the
numbers do not depend on batch size or number of processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from torch import Tensor

from .distributed import gather_rows
from .references import Reference


class SampleMetric(BaseMetric):
    """A metric that keeps statistics instead of results and knows which samples it has seen.

    Args:
        reference: what the samples are compared with.
        extractor: of features.
        num_samples: how many samples the number must rest on; any other count is refused. None
            accepts what the loop delivers.
        prefix: of the result's keys; a random extractor adds its name.
    """

    kind, layout = 'image', '(C, H, W)'  # of the samples

    def __init__(
        self, reference: Reference, extractor, num_samples: int | None, prefix: str
    ) -> None:
        if extractor.random:
            prefix = f'{prefix}_{extractor.label.replace("-", "_")}'
        super().__init__(prefix=prefix)
        self.reference, self.extractor = reference, extractor
        self.num_samples = num_samples
        self.size: tuple[int, int] | None = None  # (H, W) of the samples
        self.count = 0  # samples of the last evaluation
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._indices: list[int] = []
        self.results.clear()

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse samples (H, W) that the reference cannot be compared with."""
        self.reference.check_size(size)

    def update(self, samples: Tensor, index: Tensor) -> None:
        """Take in a batch of samples and their positions (N,)."""
        raise NotImplementedError

    def reduce(self) -> None:
        """Exchange statistics between processes; every process calls it."""
        raise NotImplementedError

    def compute(self, order: Tensor) -> dict:
        """The metrics, on the first process; ``order`` (N,) sorts gathered rows by index."""
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Stack, check and take in a batch of samples."""
        key = self.kind
        for sample in data_samples:
            if key not in sample or 'index' not in sample:
                raise ValueError(
                    f'got a sample with {sorted(sample)}, expected {key!r} and index (position in '
                    'the list of requests): return both from val_step and test_step'
                )
        tensors = [torch.as_tensor(sample[key]) for sample in data_samples]
        for sample, tensor in zip(data_samples, tensors, strict=True):
            self._check(tensor, int(sample['index']))
        index = torch.tensor([int(sample['index']) for sample in data_samples])
        stacked = torch.stack(tensors)
        if stacked.shape[-3] == 1:  # grey to RGB, as image files are read
            stacked = stacked.repeat_interleave(3, dim=-3)
        self.update(stacked, index)
        self._indices += index.tolist()

    def _check(self, tensor: Tensor, index: int) -> None:
        key, layout = self.kind, self.layout
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f'got NaN or infinity in {key} {index}, expected uint8: check the network and the '
                'autoencoder, in half precision first'
            )
        dims = layout.count(',') + 1
        if tensor.dtype != torch.uint8 or tensor.ndim != dims or tensor.shape[-3] not in (1, 3):
            raise ValueError(
                f'got {key} {index} of shape {tuple(tensor.shape)} and {tensor.dtype}, expected '
                f'{layout} with C = 1 or 3 and torch.uint8: convert with mmsparsedit.utils.uint8'
            )
        size = tuple(tensor.shape[-2:])
        if self.size is None:
            self.check_size(size)
            self.size = size
        if size != self.size:
            raise ValueError(
                f'got {key} {index} of {size[0]} x {size[1]} pixels, expected {self.size[0]} x '
                f'{self.size[1]} as the samples before it'
            )

    def describe(self) -> dict:
        """This metric's part of the recipe: reference, features, count."""
        return {
            'metric': type(self).__name__,
            'num_samples': self.count,
            'features': self.extractor.description,
            'reference': self.reference.describe(),
        }

    def evaluate(self, size: int) -> dict:
        """The metrics of all samples of all processes; same result on each.

        Args:
            size: samples that the loop was asked for.
        """
        try:
            indices = gather_rows(torch.tensor(self._indices, dtype=torch.int64))
            self.reduce()
            metrics = self._on_main(lambda: self.compute(self._order(indices, size)))
        finally:
            self.reset()
            self.size = None
        return {f'{self.prefix}/{key}': value for key, value in metrics.items()}

    def _order(self, indices: Tensor, size: int) -> Tensor:
        count, wanted = len(indices), self.num_samples or size
        twice = count - len(indices.unique())
        if twice:
            raise ValueError(
                f'got {count} samples, {twice} of them a second time, expected each once: set '
                'round_up=False in the sampler'
            )
        if count < max(wanted, 2):
            raise ValueError(
                f'got {count} samples, expected {max(wanted, 2)}: make the missing ones or lower '
                'num_samples'
            )
        if self.num_samples is not None and count > self.num_samples:
            raise ValueError(
                f'got {count} samples, expected {self.num_samples}: raise num_samples or leave '
                'some out'
            )
        if int(indices.max()) != count - 1:
            raise ValueError(
                f'got indices up to {int(indices.max())} for {count} samples, expected 0 to '
                f'{count - 1}: index is the position in the list of requests'
            )
        self.count = count
        return indices.argsort()

    def _on_main(self, function: Callable[[], dict]) -> dict:
        """Result of a function run by the first process; an error is raised by all of them."""
        box = [None, None]
        if is_main_process():
            try:
                box[0] = function()
            except Exception as error:  # raised below, by the processes that wait for it too
                box[1] = error
        broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def compute_metrics(self, results: list) -> dict:
        """Not used: :meth:`evaluate` works on statistics."""
        raise NotImplementedError

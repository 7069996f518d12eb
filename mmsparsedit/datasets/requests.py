"""What is to be sampled, as a data set: the stock test loop then serves generation."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS


@DATASETS.register_module()
class SampleRequests(Dataset):
    """Requests (seed, label), one image each.

    Args:
        num_samples: how many.
        num_classes: labels are drawn uniformly from 0 ... num_classes - 1, not sorted (the
            inception score reads images in order); None for unconditional generators.
        seed: of the labels; image i has the noise seed ``seed * 2**32 + i``.
        labels: instead of drawn ones, cycled through.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int | None = None,
        seed: int = 0,
        labels: Sequence[int] | None = None,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f'num_samples must be at least 1, got {num_samples}.')
        if labels is not None:
            labels = np.resize(np.asarray(labels), num_samples)
            if num_classes is not None and not 0 <= labels.min() <= labels.max() < num_classes:
                raise ValueError(
                    f'labels {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}.'
                )
        elif num_classes is not None:
            labels = np.random.default_rng(seed).integers(num_classes, size=num_samples)
        self.labels = labels
        self.num_samples = num_samples
        self.seed = int(seed)
        self.metainfo = dict(num_samples=num_samples, num_classes=num_classes, seed=self.seed)

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict:
        """``index``, ``seed``, and ``label`` where there are classes."""
        if not 0 <= index < self.num_samples:
            raise IndexError(index)
        request = dict(index=index, seed=self.seed * 2**32 + index)
        if self.labels is not None:
            request['label'] = int(self.labels[index])
        return request

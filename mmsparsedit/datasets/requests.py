"""What is to be sampled, as a data set: the stock test loop then serves generation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS

from .captions import decode_utf8


class Requests(Dataset):
    """Requests ``dict(index, seed, ...)``, one sample each.

    Args:
        num_samples: how many.
        seed: sample i has the noise seed ``seed * 2**32 + i``.
        metainfo: more of what ``metainfo`` is to say.
    """

    def __init__(self, num_samples: int, seed: int, **metainfo) -> None:
        if num_samples < 1:
            raise ValueError(f'num_samples must be at least 1, got {num_samples}.')
        self.num_samples, self.seed = num_samples, int(seed)
        self.metainfo = dict(num_samples=num_samples, **metainfo, seed=self.seed)

    def condition(self, index: int) -> dict:
        """What is asked for: the entries of request ``index`` besides index and seed."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.num_samples:
            raise IndexError(index)
        return dict(index=index, seed=self.seed * 2**32 + index, **self.condition(index))


@DATASETS.register_module()
class SampleRequests(Requests):
    """Requests for samples of classes: ``label``, where there are classes.

    Args:
        num_samples: how many.
        num_classes: labels are drawn uniformly from 0 ... num_classes - 1, not sorted (the
            inception score reads images in order); None for unconditional generators.
        seed: of the noise, and of the labels.
        labels: instead of drawn ones, cycled through.
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int | None = None,
        seed: int = 0,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_samples, seed, num_classes=num_classes)
        if labels is not None:
            labels = np.resize(np.asarray(labels), num_samples)
            if num_classes is not None and not 0 <= labels.min() <= labels.max() < num_classes:
                raise ValueError(
                    f'labels {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}.'
                )
        elif num_classes is not None:
            labels = np.random.default_rng(seed).integers(num_classes, size=num_samples)
        self.labels = labels

    def condition(self, index: int) -> dict:
        return {} if self.labels is None else dict(label=int(self.labels[index]))


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a text file, one a line; empty lines are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or nothing in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no file of prompts {str(path)!r}: one prompt a line.')
    lines = decode_utf8(Path(path).read_bytes()).splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f'{path} holds no prompt: write one a line.')
    return prompts


@DATASETS.register_module()
class PromptRequests(Requests):
    """Requests for images of prompts: ``prompt``.

    Args:
        prompts: the prompts, or a text file of them, one a line.
        num_samples: how many images, the prompts cycled through; by default one each.
    """

    def __init__(
        self, prompts: str | Sequence[str], num_samples: int | None = None, seed: int = 0
    ) -> None:
        self.prompts = read_prompts(prompts) if isinstance(prompts, str) else list(prompts)
        if not self.prompts:
            raise ValueError('prompts is empty: give one at least.')
        super().__init__(len(self.prompts) if num_samples is None else num_samples, seed)

    def condition(self, index: int) -> dict:
        return dict(prompt=self.prompts[index % len(self.prompts)])

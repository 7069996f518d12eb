"""Prompts to be sampled, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS

from .captions import decode_utf8


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
class PromptRequests(Dataset):
    """Requests ``dict(index, seed, prompt)``; image i has the noise seed ``seed * 2**32 + i``.

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
        self.num_samples = len(self.prompts) if num_samples is None else num_samples
        if self.num_samples < 1:
            raise ValueError(f'num_samples must be at least 1, got {num_samples}.')
        self.seed = int(seed)
        self.metainfo = dict(num_samples=self.num_samples, seed=self.seed)

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.num_samples:
            raise IndexError(index)
        prompt = self.prompts[index % len(self.prompts)]
        return dict(index=index, seed=self.seed * 2**32 + index, prompt=prompt)

"""Prompts to be sampled, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsparsedit.registry import DATASETS

from .captions import decode_utf8
from .requests import Requests


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

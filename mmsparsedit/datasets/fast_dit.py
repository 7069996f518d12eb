"""Latents as fast-DiT's ``extract_features.py`` stores them: one npy file per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS
from mmsparsedit.utils.npz import read_npy

from .latents import check_labels, check_latent_shape

# label files read at construction; the others are checked as they are read
NUM_LABELS_CHECKED = 256


@DATASETS.register_module()
class FastDiTFeatures(Dataset):
    """Features of fast-DiT: ``{features}/{k}.npy`` (1, C, h, w) float32, ``{labels}/{k}.npy`` (1,).

    The stored latents are samples of the posterior, multiplied by 0.18215 already, with a flip
    baked in once. They are divided by ``scale_factor``, so that a model treats them like every
    other latent; ``metainfo`` says ``kind='sample'``. An item is ``dict(inputs=(C, h, w) float32,
    label=int)``. Files are paired by their number: fast-DiT itself
    sorts both folders by name, which pairs the same files but in another order, and goes wrong
    unnoticed as soon as one file is missing.

    Extraction by several processes at once lets them overwrite each other's files; that cannot be
    seen from the folder, only from its count being too small.

    Args:
        data_root: folder that holds both folders.
        latent_shape: (C, h, w) that the config expects; None takes any.
        num_classes: labels must lie in [0, num_classes): 256 labels spread over the folder are
            checked at once, every other when it is read. None takes any.
        features: name of the folder of latents.
        labels: name of the folder of labels.
        scale_factor: by which the extraction multiplied.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: files that do not pair, a name that is no number, wrong shapes, wrong labels.
    """

    def __init__(
        self,
        data_root: str | Path,
        latent_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        features: str = 'imagenet256_features',
        labels: str = 'imagenet256_labels',
        scale_factor: float = 0.18215,
    ) -> None:
        self.data_root = str(data_root)
        self.feature_dir = os.path.join(self.data_root, features)
        self.label_dir = os.path.join(self.data_root, labels)
        self.num_classes = num_classes
        numbers = _numbers(self.feature_dir)
        label_numbers = _numbers(self.label_dir)
        if not np.array_equal(numbers, label_numbers):
            alone = np.setxor1d(numbers, label_numbers)
            raise ValueError(
                f'{self.data_root}: got {len(numbers)} features and {len(label_numbers)} labels, '
                f'expected one label per feature. {len(alone)} numbers are in one folder only, the '
                f'first are {alone[:5].tolist()}. Copy what is missing, or remove the rest.'
            )
        self._numbers = numbers
        shape = read_npy(self._feature(0)).shape
        if len(shape) != 4 or shape[0] != 1:
            raise ValueError(
                f'{self._feature(0)}: got shape {shape}, expected (1, C, h, w) as fast-DiT writes '
                'with batch size 1. Name the folder of features.'
            )
        self.latent_shape = tuple(shape[1:])
        check_latent_shape(self.latent_shape, latent_shape, self.feature_dir)
        some = np.unique(np.linspace(0, len(numbers) - 1, NUM_LABELS_CHECKED).astype(np.int64))
        for i in some:
            self._label(i)
        self.metainfo = {
            'latent_shape': self.latent_shape,
            'scale_factor': scale_factor,
            'kind': 'sample',
            'classes': (),
        }

    def _feature(self, index: int) -> str:
        return os.path.join(self.feature_dir, f'{self._numbers[index]}.npy')

    def _label(self, index: int) -> int:
        path = os.path.join(self.label_dir, f'{self._numbers[index]}.npy')
        label = read_npy(path)
        if label.shape != (1,) or label.dtype.kind not in 'iu':
            raise ValueError(
                f'{path}: got {label.dtype} of shape {label.shape}, expected one integer of shape '
                '(1,). Name the folder of labels, or extract the features again.'
            )
        check_labels(label, self.num_classes, path)
        return int(label[0])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict:
        """One item: ``inputs`` (C, h, w) float32, unscaled; ``label`` int."""
        feature = read_npy(self._feature(index))
        if feature.shape != (1, *self.latent_shape):
            raise ValueError(
                f'{self._feature(index)}: got shape {feature.shape}, expected '
                f'{(1, *self.latent_shape)} as in the first file. The folder mixes two '
                'extractions: extract again into an empty folder.'
            )
        if feature.dtype.kind != 'f' or not np.isfinite(feature).all():
            raise ValueError(
                f'{self._feature(index)}: got {feature.dtype} with NaN, infinity or no fractions, '
                'expected finite float32. Extract it again.'
            )
        latent = torch.from_numpy(feature[0].astype(np.float32)) / self.metainfo['scale_factor']
        return {'inputs': latent, 'label': self._label(index)}


def _numbers(folder: str) -> np.ndarray:
    """Numbers of the files ``{k}.npy`` of a folder, ascending."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f'there is no folder {folder!r}: fast-DiT writes imagenet256_features and '
            'imagenet256_labels below its --features-path. Set data_root to that path, or features '
            'and labels to the names of the two folders.'
        )
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith('.npy')]
    stems = [name[: -len('.npy')] for name in names]
    wrong = [stem for stem in stems if not (stem.isascii() and stem.isdigit())]
    if wrong or not names:
        raise (ValueError if wrong else FileNotFoundError)(
            f'{folder}: got {f"{wrong[0]}.npy" if wrong else "no .npy files"}, expected files '
            '0.npy, 1.npy, ... as fast-DiT writes them. Remove other files or name another folder.'
        )
    return np.sort(np.array(stems, dtype=np.int64))

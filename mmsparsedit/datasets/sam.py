"""PixArt-alpha's extracted features, read as they are: SAM's layout and the JSON variant."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS
from mmsparsedit.utils.files import first_line
from mmsparsedit.utils.npz import NpzArray, read_npy

from .captions import number, read_annotations, read_stems
from .damaged import DamagedError, SkipDamaged


def read_text_feature(path: str, channels: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Features (L, C) float32 and mask (L,) int64 of ``caption_feature`` [1, l, C] in an ``.npz``.

    Shorter captions are padded with zeros, longer ones cut; a missing ``attention_mask`` [1, l]
    means that all tokens are valid.

    Raises:
        DamagedError: no such file, or a damaged one.
        ValueError: features of another width.
    """
    try:
        feature = NpzArray(path, 'caption_feature').read()
        valid = None
        if 'attention_mask' in NpzArray.keys(path):
            valid = NpzArray(path, 'attention_mask').read()
        _check_finite(feature)
    except (OSError, ValueError) as error:
        raise DamagedError(path, first_line(error)) from error
    feature = feature.reshape(-1, feature.shape[-1] if feature.ndim else 1)
    valid = np.ones(len(feature)) if valid is None else valid.reshape(-1)
    if feature.shape[1] != channels or len(valid) != len(feature):
        raise ValueError(
            f'{path}: got text features of shape {feature.shape} with a mask of {len(valid)}, '
            f'expected (L, {channels}): extract them with the text encoder of the config, or set '
            'caption_channels of network and data set.'
        )
    length = min(len(feature), max_length)
    y = torch.zeros(max_length, channels)
    y[:length] = torch.from_numpy(feature[:length].astype(np.float32))
    mask = torch.zeros(max_length, dtype=torch.int64)
    mask[:length] = torch.from_numpy(valid[:length].astype(np.int64))
    return y, mask


def read_latent_feature(path: str, latent_shape: Sequence[int]) -> Tensor:
    """Mean and log variance (2C, h, w) float32 of an ``.npy`` [2C, h, w] of mean and deviation.

    Raises:
        DamagedError: no such file, or a damaged one.
        ValueError: latents of another shape.
    """
    try:
        moments = read_npy(path)
        _check_finite(moments)
    except (OSError, ValueError) as error:
        raise DamagedError(path, first_line(error)) from error
    channels, height, width = latent_shape
    if moments.shape != (2 * channels, height, width):
        raise ValueError(
            f'{path}: got latents of shape {moments.shape}, expected '
            f'{(2 * channels, height, width)}, mean and standard deviation. Name the folder made '
            "for this config's size, or change latent_shape and input_size of the network."
        )
    mean, deviation = torch.from_numpy(moments.astype(np.float32)).chunk(2)
    return torch.cat([mean, 2 * deviation.clamp(min=1e-10).log()])


def _check_finite(values: np.ndarray) -> None:
    if values.dtype.kind != 'f' or not np.isfinite(values).all():
        raise ValueError(f'{values.dtype} with NaN, infinity or no fractions')


class _PixArtFeatures(SkipDamaged, Dataset):
    """Items ``dict(inputs (2C, h, w), y (L, C_text), mask (L,))`` from two files each.

    An item with a missing or damaged file is replaced (``SkipDamaged``). The first item is read at
    construction.
    """

    advice = 'Check the folders and the lists'

    def __init__(
        self,
        data_root: str,
        caption_channels: int,
        max_length: int,
        latent_shape: Sequence[int],
        max_skipped_share: float,
    ) -> None:
        self.data_root = str(data_root)
        self.caption_channels = caption_channels
        self.max_length = max_length
        self.latent_shape = tuple(latent_shape)
        self.limit_damaged(max_skipped_share)
        self.files = self.find_files()
        if not self.files:
            raise FileNotFoundError(f'{self.data_root}: the lists name no images.')
        self.metainfo = dict(latent_shape=self.latent_shape, scale_factor=0.18215, kind='moments')
        self.watch()
        self[0]

    def find_files(self) -> list[tuple[str, str, dict]]:
        """(latent file, text file, further entries of the item) of every image."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> dict:
        """One item.

        Raises:
            DamagedError: one of its files is missing or damaged.
        """
        latent, text, further = self.files[index]
        inputs = read_latent_feature(latent, self.latent_shape)
        y, mask = read_text_feature(text, self.caption_channels, self.max_length)
        return dict(inputs=inputs, y=y, mask=mask, **further)


@DATASETS.register_module()
class SAM(_PixArtFeatures):
    """SAM as PixArt-alpha extracted it: latents, text features and partition lists.

    Args:
        data_root: folder of SA1B.
        image_list_txt: names of lists below ``partition``, one stem per line; ``'all'`` takes every
            ``part*.txt`` there.
        caption_channels, max_length: width of the text encoder, places of a caption.
        latent_shape: (C, h, w).
        latent_dir, text_dir: folders of ``{stem}.npy`` and ``{stem}.npz``.
        max_skipped_share: of items whose files cannot be read.

    Raises:
        FileNotFoundError: a missing folder or list.
        ValueError: features of another width, latents of another shape, too many unreadable items.
    """

    def __init__(
        self,
        data_root: str,
        image_list_txt: str | Sequence[str] = 'all',
        caption_channels: int = 4096,
        max_length: int = 120,
        latent_shape: Sequence[int] = (4, 32, 32),
        latent_dir: str = 'img_vae_feature/train_vae_256/noflip',
        text_dir: str = 'caption_feature_wmask',
        max_skipped_share: float = 0.01,
    ) -> None:
        self.image_list_txt = image_list_txt
        self.latent_dir = os.path.join(data_root, latent_dir)
        self.text_dir = os.path.join(data_root, text_dir)
        for folder in (self.latent_dir, self.text_dir):
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f'there is no folder of features {folder!r}: set data_root to the folder of '
                    'SA1B with partition, caption_feature_wmask and img_vae_feature, as PixArt '
                    'extracts them, or latent_dir and text_dir to the names of yours.'
                )
        super().__init__(data_root, caption_channels, max_length, latent_shape, max_skipped_share)

    def find_files(self) -> list[tuple[str, str, dict]]:
        folder = Path(self.data_root, 'partition')
        if self.image_list_txt == 'all':
            lists = sorted(str(path) for path in folder.glob('part*.txt'))
            if not lists:
                raise FileNotFoundError(f'{folder} holds no lists part*.txt of stems, one a line.')
        else:
            names = self.image_list_txt
            names = [names] if isinstance(names, str) else names
            lists = [str(folder / name) for name in names]
        return [
            (f'{self.latent_dir}/{stem}.npy', f'{self.text_dir}/{stem}.npz', {})
            for stem in read_stems(lists)
        ]


@DATASETS.register_module()
class PixArtJson(_PixArtFeatures):
    """PixArt-alpha's JSON variant (``InternalData``): ``partition/data_info.json``.

    Entries are ``{path, prompt, ratio, height, width}``; ``a/b.png`` has the feature files
    ``a_b.npy`` and ``a_b.npz``. Items also carry ``img_hw`` (2,) and ``aspect_ratio`` (1,) where
    an entry has both sides.

    Args:
        ann_file: the list, below ``data_root``.
        max_ratio: entries with a larger ``ratio`` are left out (PixArt: 4).

    Others as for ``SAM``.
    """

    def __init__(
        self,
        data_root: str,
        latent_dir: str,
        text_dir: str = 'caption_features',
        ann_file: str = 'partition/data_info.json',
        caption_channels: int = 4096,
        max_length: int = 120,
        latent_shape: Sequence[int] = (4, 32, 32),
        max_ratio: float = 4.0,
        max_skipped_share: float = 0.01,
    ) -> None:
        self.ann_file = os.path.join(data_root, ann_file)
        self.latent_dir = os.path.join(data_root, latent_dir)
        self.text_dir = os.path.join(data_root, text_dir)
        self.max_ratio = max_ratio
        super().__init__(data_root, caption_channels, max_length, latent_shape, max_skipped_share)

    def find_files(self) -> list[tuple[str, str, dict]]:
        items = []
        for where, entry in read_annotations(self.ann_file):
            if not isinstance(entry.get('path'), str):
                raise ValueError(f'{where}: got {json.dumps(entry)[:200]}, expected the key path.')
            if number(entry, 'ratio', where) > self.max_ratio:
                continue
            stem = os.path.splitext('_'.join(entry['path'].rsplit('/', 1)))[0]
            further = {}
            if 'height' in entry and 'width' in entry:
                height, width = (number(entry, side, where) for side in ('height', 'width'))
                if min(height, width) <= 0:
                    raise ValueError(f'{where}: got {height} x {width}, expected sides above 0.')
                further['img_hw'] = torch.tensor([height, width])
                further['aspect_ratio'] = torch.tensor([height / width])
            files = (f'{self.latent_dir}/{stem}.npy', f'{self.text_dir}/{stem}.npz')
            items.append((*files, further))
        return items

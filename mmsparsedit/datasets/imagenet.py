"""ImageNet, and any other images sorted into class folders or named by a text list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import BaseDataset

from mmsparsedit.registry import DATASETS, TRANSFORMS

from .damaged import SkipDamaged
from .latents import check_labels
from .transforms.loading import IMAGE_EXTENSIONS, CorruptImageError


@DATASETS.register_module()
class ImageNet(SkipDamaged, BaseDataset):
    """Images with class labels, from class folders or from a list.

    Class folders: the sorted names of the folders of ``data_root`` are the classes 0, 1, ... and
    their images, at any depth, are taken in sorted order (torchvision's ImageFolder, DiT's order).
    List: every line of ``ann_file`` is ``path label``, the path relative to ``data_root``, the
    label an integer; a path may contain spaces.

    A corrupt image is replaced by the next good one (``SkipDamaged``).

    Args:
        data_root: folder of the class folders, or the one that the paths of the list start from.
        pipeline: transforms, as configs or objects, from ``img_path`` and ``label`` to an item.
        ann_file: the list; None reads class folders.
        num_classes: class folders must be as many (one missing folder would shift every label
            behind it), labels of a list must lie in [0, num_classes). None takes any.
        classes: names of the classes of a list; class folders name themselves.
        max_corrupt_share: in [0, 1].

    Raises:
        FileNotFoundError: no such folder or list, no images.
        ValueError: wrong number of classes, a line of the list that cannot be read, too many
            corrupt images (at the first read that finds out).
    """

    items, damaged, share_name = 'images', 'corrupt', 'max_corrupt_share'

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence = (),
        ann_file: str | None = None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        max_corrupt_share: float = 0.01,
    ) -> None:
        self.limit_damaged(max_corrupt_share)
        if not os.path.isdir(data_root):
            raise FileNotFoundError(
                f'there is no folder of images {data_root!r}: set data_root to the folder that '
                'holds one folder per class (ImageNet: .../train with n01440764, ...), or to the '
                'one that the paths of ann_file start from.'
            )
        self.image_list = ann_file
        self.num_classes = num_classes
        self._classes = list(classes or ())
        super().__init__(
            data_root=str(data_root),
            metainfo={'classes': ()},
            pipeline=[TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline],
        )
        self._metainfo['classes'] = tuple(self._classes)
        self.watch()

    def load_data_list(self) -> list[dict]:
        """Paths and labels, in the order of the data set."""
        items = self._from_list() if self.image_list else self._from_folders()
        if not items:
            raise FileNotFoundError(
                f'{self.image_list or self.data_root} names no images: expected files ending in '
                f'{" ".join(IMAGE_EXTENSIONS)} in one folder per class, or a list as ann_file.'
            )
        where = self.image_list or self.data_root
        check_labels(np.array([item['label'] for item in items]), self.num_classes, where)
        return items

    def _from_folders(self) -> list[dict]:
        with os.scandir(self.data_root) as entries:
            self._classes = sorted(entry.name for entry in entries if entry.is_dir())
        if self.num_classes is not None and len(self._classes) != self.num_classes:
            raise ValueError(
                f'{self.data_root}: got {len(self._classes)} class folders, expected '
                f'{self.num_classes}. Complete the folders, or set num_classes (of the data set '
                'and of the network).'
            )
        items = []
        for label, name in enumerate(self._classes):
            for folder, folders, files in os.walk(os.path.join(self.data_root, name)):
                folders.sort()
                items += [
                    {'img_path': os.path.join(folder, file), 'label': label}
                    for file in sorted(files)
                    if file.lower().endswith(IMAGE_EXTENSIONS)
                ]
        return items

    def _from_list(self) -> list[dict]:
        if not os.path.isfile(self.image_list):
            raise FileNotFoundError(
                f'there is no list {self.image_list!r}: write one line `path label` per image, or '
                'set ann_file=None to read class folders.'
            )
        items = []
        with open(self.image_list, encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                path, _, label = line.strip().rpartition(' ')
                if not path or not label.isdigit():
                    raise ValueError(
                        f'{self.image_list}, line {number}: got {line.strip()!r}, expected `path '
                        'label` with a label from 0'
                    )
                path = os.path.join(self.data_root, path.strip())
                items.append({'img_path': path, 'label': int(label)})
        return items

    def relative_path(self, index: int) -> str:
        """Path of an image below ``data_root``, with forward slashes."""
        return self._below_root(self.get_data_info(index)['img_path'])

    def _below_root(self, path: str) -> str:
        return path.removeprefix(os.path.join(self.data_root, '')).replace(os.sep, '/')

    def digest(self) -> str:
        """SHA-256 over the paths below ``data_root`` and what belongs to them, in order; not the
        pixels."""
        sha = hashlib.sha256()
        for index in range(len(self)):
            sha.update(self._digested(self.get_data_info(index)).encode())
        return sha.hexdigest()

    def _digested(self, item: dict) -> str:
        return f'{self._below_root(item["img_path"])} {item["label"]}\n'

    def load(self, index: int) -> dict:
        """The item of one image.

        Raises:
            CorruptImageError: it cannot be decoded.
        """
        return self.pipeline(self.get_data_info(index))

    def read(self, index: int) -> dict:
        """The item of one image, or ``dict(corrupt=dict(path=..., reason=...))``; no replacement.

        Raises:
            ValueError: too large a share of the images is corrupt.
        """
        try:
            return self.load(index)
        except CorruptImageError as error:
            self.skip(index, error)
            return {'corrupt': {'path': self.relative_path(index), 'reason': error.reason}}

    def corrupt_images(self) -> list[str]:
        """Paths below ``data_root`` of the corrupt images found so far."""
        return [self.relative_path(index) for index in self.positions()]

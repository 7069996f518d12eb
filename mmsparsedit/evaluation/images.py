"""Images that anyone made: npz in ADM's format, and folders of image files.

A source is an object with a length, the image size, and :meth:`batches`, which gives uint8 tensors
(N, 3, H, W) in file order. Letters: N images of H x W pixels.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmsparsedit.datasets.transforms.center_crop import center_crop_adm
from mmsparsedit.datasets.transforms.loading import (
    IMAGE_EXTENSIONS,
    CorruptImageError,
    LoadImage,
    open_image,
)
from mmsparsedit.utils.npz import NpzArray
from mmsparsedit.visualization import is_grid

DECODE_THREADS = 4


def natural_order(path: str | os.PathLike) -> list:
    """Sort key that compares runs of digits as numbers: 2.png before 10.png."""
    return [
        (0, int(part), '') if part.isdigit() else (1, 0, part)
        for part in re.split(r'(\d+)', Path(path).as_posix())
    ]


def check_image_array(shape: tuple[int, ...], dtype: np.dtype, path: str | os.PathLike) -> None:
    """Refuse an array of images that is not uint8 (N, H, W, 3)."""
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            f'got images of shape {tuple(shape)} in {path}, expected (N, H, W, 3): '
            'channels last, three of them'
        )
    if dtype != np.uint8:
        raise ValueError(
            f'got images of {dtype} in {path}, expected uint8: '
            'convert [-1, 1] by clamp(127.5 x + 128, 0, 255), truncated'
        )


class NpzImages:
    """Images of an npz under ``arr_0``, uint8 (N, H, W, 3), as ADM's samplers write them."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.array = NpzArray(path)
        if np.issubdtype(self.array.dtype, np.floating):
            self._refuse_nan()
        check_image_array(self.array.shape, self.array.dtype, path)
        self.size = tuple(self.array.shape[1:3])  # (H, W)

    def _refuse_nan(self) -> None:
        for block in self.array.blocks(64):
            if np.isnan(block).any():
                raise ValueError(
                    f'got NaN images in {self.path}, expected uint8: check the network that made '
                    'them'
                )

    def __len__(self) -> int:
        return len(self.array)

    def batches(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """uint8 tensors (N, 3, H, W) of the first ``limit`` images in file order."""
        for block in self.array.blocks(size, limit):
            yield torch.from_numpy(block.copy()).permute(0, 3, 1, 2).contiguous()


class FolderImages:
    """Images of a folder and its subfolders in natural order of their paths, all of one size.

    Grey images are repeated to three channels; images with an alpha channel are refused.

    Args:
        crop: pixels of the centre square that each becomes, by the rule of ``CenterCropADM``, as
            training crops; None takes the images as they are.
    """

    def __init__(self, path: str | os.PathLike, crop: int | None = None) -> None:
        self.path, self.crop = Path(path), crop
        files = (file for file in self.path.rglob('*') if file.suffix.lower() in IMAGE_EXTENSIONS)
        files = (file for file in files if not is_grid(file))  # of sample.py and test.py
        self.files = sorted(files, key=lambda file: natural_order(file.relative_to(self.path)))
        if not self.files:
            raise ValueError(
                f'got {self.path} without images, expected files of {", ".join(IMAGE_EXTENSIONS)}'
            )
        self.size = tuple(self._pixels(self.files[0]).shape[:2])  # (H, W)

    def __len__(self) -> int:
        return len(self.files)

    def _pixels(self, file: Path) -> np.ndarray:
        if self.crop is None:
            return read_image(file)
        try:  # as training reads it
            image = LoadImage()({'img_path': str(file)})['img']
        except CorruptImageError as error:
            raise ValueError(f'{error}: mend or remove it') from error
        return np.array(center_crop_adm(Image.fromarray(image), self.crop))

    def _read(self, file: Path) -> Tensor:
        image = self._pixels(file)
        if image.shape[:2] != self.size:
            raise ValueError(
                f'got {file} of {image.shape[0]} x {image.shape[1]} pixels, expected '
                f'{self.size[0]} x {self.size[1]} as {self.files[0]}: bring all to one size '
                'first, for a reference by --size'
            )
        return torch.from_numpy(image).permute(2, 0, 1)

    def batches(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """uint8 tensors (N, 3, H, W) of the first ``limit`` images in natural order."""
        files = self.files[:limit]
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            for start in range(0, len(files), size):
                yield torch.stack(list(pool.map(self._read, files[start : start + size])))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """An image file as uint8 (H, W, 3); names the file if it is damaged or has another mode."""
    try:
        image = open_image(path)
    except CorruptImageError as error:
        raise ValueError(
            f'got {path}, expected an image: it is damaged ({error.reason})'
        ) from error
    mode = f'{image.mode} with transparency' if 'transparency' in image.info else image.mode
    if mode not in ('RGB', 'L', 'P', '1'):
        raise ValueError(
            f'got {path} of mode {mode}, expected RGB or L: an alpha channel or 16 bits would be '
            'dropped silently, convert it first'
        )
    return np.array(image.convert('RGB'))


def open_images(path: str | os.PathLike, crop: int | None = None) -> NpzImages | FolderImages:
    """The images of an npz or of a folder; ``crop`` as ``FolderImages`` takes it."""
    path = Path(path)
    if path.is_dir():
        return FolderImages(path, crop)
    if crop is not None and path.is_file():
        raise ValueError(f'got {path} with a size to crop to, which is for folders of images')
    if path.suffix == '.npz' or path.is_file():
        return NpzImages(path)
    raise FileNotFoundError(f'got {path}, expected an npz or a folder of images: no such path')

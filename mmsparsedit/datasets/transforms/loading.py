"""Reading image files of any colour model, and packing an image for the network.

Images between transforms are numpy arrays (H, W, 3), RGB, uint8, under the key ``img``, as mmcv's
transforms take them.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from mmsparsedit.registry import TRANSFORMS
from mmsparsedit.utils.files import is_special

from ..damaged import DamagedError
from .base import Transform

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
# what a file may hold, whatever its name says: an EPS named .jpg would start Ghostscript
IMAGE_FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'PPM', 'TIFF', 'WEBP')
# a small file can hold a picture that fills the memory; from here on Pillow warns
MAX_PIXELS = 89_478_485
# what Pillow's decoders raise on damaged files
DECODING_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class CorruptImageError(DamagedError):
    """A file that is there but cannot be decoded: truncated, empty, or no image at all."""

    what = 'cannot be read as an image'


def open_image(path: str | os.PathLike, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """The decoded image of a file, of any mode; the one reader of training and evaluation.

    The checksums of a PNG are compared; the other formats have none.

    Raises:
        CorruptImageError: the file cannot be decoded, is none of ``formats``, has more than
            ``MAX_PIXELS``, is no file at all (a pipe, a folder), or a link to nothing.
        FileNotFoundError: there is no such file.
    """
    try:
        if is_special(path) or os.path.isdir(path):
            raise CorruptImageError(path, 'it is no regular file')
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise CorruptImageError(path, 'it is a link to nothing') from error
        raise
    data = Path(path).read_bytes()
    if not data:
        raise CorruptImageError(path, 'the file is empty')
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f'{image.width} x {image.height} pixels are more than {MAX_PIXELS}')
        if image.format == 'PNG':
            image.verify()  # which leaves an image that cannot be read
            image = Image.open(io.BytesIO(data), formats=formats)
        image.load()
    except Image.UnidentifiedImageError as error:
        raise CorruptImageError(path, 'no image format recognised') from error
    except DECODING_ERRORS as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise CorruptImageError(path, reason) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    16-bit values are divided by 257 and rounded (0 and 65535 become 0 and 255); transparent
    pixels are laid over white; everything else is Pillow's conversion.

    Raises:
        ValueError: 32-bit integers or floats, whose range a file does not tell.
    """
    if image.mode.startswith('I'):
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError('pixels of 32 bits, whose range is unknown; convert to 8 or 16 bits')
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        raise ValueError('pixels are floats, whose range is unknown; convert to 8 or 16 bits')
    if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('RGB')


@TRANSFORMS.register_module()
class LoadImage(Transform):
    """Read ``img_path`` as RGB uint8 with Pillow: greyscale, palette, CMYK, RGBA, 16-bit, any EXIF.

    Differs from DiT's loader (``convert('RGB')``) in three things that its data hardly contains:
    the EXIF orientation is applied, transparency is laid over white instead of dropped, 16-bit
    greyscale is scaled instead of clipped.

    Args:
        exif_rotation: turn the image upright by its EXIF orientation. False for the pixels that
            DiT sees.

    Required key ``img_path``; added ``img`` (H, W, 3) uint8, ``img_shape``, ``ori_shape``.

    Raises:
        CorruptImageError: the file cannot be decoded.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, exif_rotation: bool = True) -> None:
        self.exif_rotation = exif_rotation

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        image = open_image(path)
        try:
            pixels = np.array(to_rgb(self._upright(image)))
        except (ValueError, OSError) as error:
            raise CorruptImageError(path, str(error)) from error
        results['img'] = pixels
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results

    def _upright(self, image: Image.Image) -> Image.Image:
        if not self.exif_rotation:
            return image
        try:
            return ImageOps.exif_transpose(image)
        except DECODING_ERRORS:  # damaged EXIF data of a sound image tell no orientation
            return image


@TRANSFORMS.register_module()
class PackImage(Transform):
    """Make the item of an image: ``dict(inputs=(3, H, W) float32, label=int)``.

    8-bit images become [-1, 1] by x / 127.5 - 1, DiT's ToTensor and Normalize(0.5, 0.5); float
    images (after mmcv's ``Normalize``) are left as they are.

    Required keys ``img`` (H, W, 3), ``label``; every other key is dropped.
    """

    def transform(self, results: dict) -> dict:
        image = torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))
        inputs = image / 127.5 - 1 if image.dtype == torch.uint8 else image.float()
        return {'inputs': inputs, 'label': int(results['label'])}

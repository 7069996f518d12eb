"""Centre crops: ADM's (guided-diffusion, ``center_crop_arr``: DiT, SiT), and PixArt's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmsparsedit.registry import TRANSFORMS

from .base import Transform


def center_crop_adm(image: Image.Image, size: int) -> Image.Image:
    """Largest centred square of an image at ``size`` x ``size`` pixels, by the rule of ADM.

    Both sides are halved with a box filter (floor of odd sides) while the smaller is at least
    twice ``size``; a bicubic resize brings the smaller to ``size`` (both rounded); the crop begins
    at the floor of half the margin.
    """
    width, height = image.size
    while min(width, height) >= 2 * size:
        width, height = width // 2, height // 2
        image = image.resize((width, height), Image.Resampling.BOX)
    scale = size / min(width, height)
    width, height = round(width * scale), round(height * scale)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def center_crop_pixart(image: Image.Image, size: int) -> Image.Image:
    """Largest centred square of an image at ``size`` x ``size`` pixels, by the rule of PixArt.

    torchvision's ``Resize`` and ``CenterCrop``: one antialiased bilinear resize brings the smaller
    side to ``size`` (the larger rounded down); the crop begins at half the margin, rounded.
    """
    from torchvision.transforms import functional

    return functional.center_crop(functional.resize(image, size), size)


@TRANSFORMS.register_module()
class CenterCropADM(Transform):
    """Replace ``img`` by its ADM centre crop, pixel for pixel that of ``center_crop_arr``.

    Args:
        size: side of the result in pixels.

    Required key ``img`` (H, W, 3) uint8; modified ``img`` (size, size, 3), ``img_shape``.

    Raises:
        ValueError: size is no positive integer, or the image is not 8-bit.
    """

    crop = staticmethod(center_crop_adm)

    def __init__(self, size: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f'{type(self).__name__}: got size={size!r}, expected a positive integer'
            )
        self.size = size

    def transform(self, results: dict) -> dict:
        image = results['img']
        if image.dtype != np.uint8:
            raise ValueError(
                f'{type(self).__name__}: got an image of {image.dtype}, expected uint8. '
                'Put it before Normalize in the pipeline.'
            )
        results['img'] = np.asarray(self.crop(Image.fromarray(image), self.size))
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class CenterCropPixArt(CenterCropADM):
    """Replace ``img`` by its centre crop, as PixArt extracts SAM's features."""

    crop = staticmethod(center_crop_pixart)

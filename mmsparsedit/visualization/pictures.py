"""Pictures of samples: one PNG per image with its request inside, and labelled grids."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Resampling
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mmsparsedit.utils.files import atomic_write

METADATA_KEY = 'mmsparsedit'  # of a PNG, the text that says what it was asked to show
GRID_KEY = 'mmsparsedit-grid'  # of a PNG that shows many samples


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (C, H, W), one or three channels -> picture."""
    array = image.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))


def enlarged(image: Tensor, cell: int) -> Image.Image:
    """uint8 (C, H, W), unsmoothed, by the least whole factor that makes it ``cell`` wide."""
    picture = to_pil(image)
    factor = max(1, math.ceil(cell / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Resampling.NEAREST)


def save_image(path: str | Path, image: Tensor, request: Mapping) -> None:
    """Write uint8 (C, H, W) as PNG that carries ``request`` as JSON in its text."""
    info = PngInfo()
    info.add_text(METADATA_KEY, json.dumps(dict(request), sort_keys=True))
    with atomic_write(path, durable=False) as beside:
        to_pil(image).save(beside, 'PNG', pnginfo=info)


def read_request(path: str | Path) -> dict:
    """The request that an image of ``save_image`` was made for."""
    with Image.open(path, formats=['PNG']) as image:
        return json.loads(image.text[METADATA_KEY])


def save_grid(path: str | Path, grid: Image.Image) -> None:
    """Write a picture of many samples as PNG that says so: it is none of the samples."""
    info = PngInfo()
    info.add_text(GRID_KEY, 'samples')
    with atomic_write(path, durable=False) as beside:
        grid.save(beside, 'PNG', pnginfo=info)


def save_figure(path: str | Path, figure, **options) -> None:
    """Write a figure of matplotlib in the format that the ending of ``path`` names."""
    with atomic_write(path, durable=False) as beside:
        figure.savefig(beside, format=Path(path).suffix[1:] or 'png', **options)


def is_grid(path: str | Path) -> bool:
    """Whether a file is a picture that ``save_grid`` wrote."""
    if Path(path).suffix.lower() != '.png':
        return False
    with open(path, 'rb') as file:  # the text stands before the pixels
        return b'tEXt' + GRID_KEY.encode() in file.read(256)


def labelled_grid(
    images: Sequence[Tensor], captions: Sequence[str], columns: int | None = None, cell: int = 64
) -> Image.Image:
    """Images uint8 (C, H, W) of one size side by side, each under its caption.

    Args:
        columns: by default about square.
        cell: smallest width of an image; smaller ones are enlarged by a whole factor, unsmoothed.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    pictures = [enlarged(image, cell).convert('RGB') for image in images]
    width, height = pictures[0].size
    font = ImageFont.load_default(size=12)
    gap, line = 4, 16
    grid = Image.new(
        'RGB', (columns * (width + gap) + gap, rows * (height + line + gap) + gap), 'white'
    )
    draw = ImageDraw.Draw(grid)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + i % columns * (width + gap)
        top = gap + i // columns * (height + line + gap)
        fits = caption
        while draw.textlength(fits, font=font) > width and len(fits) > 1:
            fits = fits[:-2] + '…'
        draw.text((left, top), fits, fill='black', font=font)
        grid.paste(picture, (left, top + line))
    return grid


def under_headings(parts: Sequence[tuple[str, Image.Image]], beside: bool = False) -> Image.Image:
    """Pictures one below the other, or side by side, each under a heading.

    A heading that is too long for its picture gets the room that it needs.
    """
    font, gap = ImageFont.load_default(size=18), 8
    line = 18 + 2 * gap
    sizes = [
        (max(picture.width, math.ceil(font.getlength(heading)) + 2 * gap), picture.height + line)
        for heading, picture in parts
    ]
    widths, heights = zip(*sizes, strict=True)
    size = (sum(widths), max(heights)) if beside else (max(widths), sum(heights))
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    left = top = 0
    for (heading, picture), (width, height) in zip(parts, sizes, strict=True):
        draw.text((left + gap, top + gap), heading, fill='black', font=font)
        sheet.paste(picture, (left, top + line))
        left, top = (left + width, top) if beside else (left, top + height)
    return sheet

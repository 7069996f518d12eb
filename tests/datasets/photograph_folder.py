"""A folder of real photographs with everything that users' folders contain."""

import os

import numpy as np
import pytest
from PIL import Image

# class folders and the photographs of scikit-image that come with its wheel
PHOTOGRAPHS = {
    'animals': ['chelsea.png', 'horse.png'],
    'objects': ['coffee.png', 'coins.png', 'clock_motion.png', 'motorcycle_left.png'],
    'people': ['astronaut.png', 'camera.png', 'rocket.jpg'],
    'textures': ['brick.png', 'grass.png', 'gravel.png'],
}
NUM_GOOD = sum(map(len, PHOTOGRAPHS.values())) + 5
CORRUPT = ['objects/text.jpg', 'people/empty.jpg', 'textures/truncated.jpg']


def photograph(name: str) -> Image.Image:
    import skimage

    path = os.path.join(os.path.dirname(skimage.__file__), 'data', name)
    if not os.path.isfile(path):
        pytest.skip(f'this scikit-image does not carry {name}')
    with Image.open(path) as image:
        image.load()
        return image


def write_photographs(root) -> None:
    """Four classes, odd sizes, every colour model, and three files that are no images."""
    for label, (folder, names) in enumerate(PHOTOGRAPHS.items()):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(names):
            image = photograph(name)
            # odd sizes, small enough for a test on two cores
            size = (97 + 38 * number, 151 - 20 * label)
            image.convert('RGB').resize(size).save(root / folder / name)
    cat = photograph('chelsea.png').convert('RGB').resize((131, 89))
    cat.convert('L').save(root / 'animals' / 'grey.jpg')
    cat.convert('CMYK').save(root / 'animals' / 'cmyk.jpg')
    alpha = Image.linear_gradient('L').resize(cat.size)
    with_alpha = cat.copy()
    with_alpha.putalpha(alpha)
    with_alpha.save(root / 'people' / 'alpha.png')
    deep = np.asarray(photograph('camera.png').resize((75, 75))).astype(np.uint16) * 257
    Image.fromarray(deep).save(root / 'people' / 'deep.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    cat.save(root / 'textures' / 'rotated.jpg', exif=exif)
    (root / 'objects' / 'text.jpg').write_text('not an image\n')
    (root / 'people' / 'empty.jpg').touch()
    cat.save(root / 'textures' / 'truncated.jpg')
    whole = (root / 'textures' / 'truncated.jpg').read_bytes()
    (root / 'textures' / 'truncated.jpg').write_bytes(whole[: len(whole) // 2])

"""Image transforms: pixels against direct Pillow and torchvision rules."""

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from mmsparsedit.datasets.transforms import CorruptImageError, center_crop_adm, to_rgb
from mmsparsedit.registry import TRANSFORMS


def build(kind, **arguments):
    return TRANSFORMS.build(dict(type=kind, **arguments))


def direct_crop(image, size):
    """The rule of guided-diffusion, spelt out once more with arrays."""
    while min(image.size) >= 2 * size:
        image = image.resize([side // 2 for side in image.size], resample=Image.BOX)
    factor = size / min(image.size)
    image = image.resize([round(side * factor) for side in image.size], resample=Image.BICUBIC)
    array = np.array(image)
    y, x = ((side - size) // 2 for side in array.shape[:2])
    return array[y : y + size, x : x + size]


def test_center_crop_equals_the_rule_on_200_random_sizes():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (700, 700, 3), dtype=np.uint8)
    halved = 0
    for _ in range(200):
        height, width = random.integers(9, 700, 2)
        size = int(random.integers(8, 160))
        halved += min(height, width) >= 2 * size
        array = noise[:height, :width]
        got = build('CenterCropADM', size=size)({'img': array})
        assert got['img_shape'] == (size, size)
        assert np.array_equal(got['img'], direct_crop(Image.fromarray(array), size))
    assert 50 < halved < 150  # both branches were met


def test_pixarts_crop_is_torchvisions_resize_and_centre_crop():
    from torchvision import transforms

    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for height, width, size in ((33, 200, 16), (201, 77, 32), (64, 64, 64), (299, 131, 100)):
        array = noise[:height, :width]
        reference = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
        wanted = np.asarray(reference(Image.fromarray(array)))
        assert np.array_equal(build('CenterCropPixArt', size=size)({'img': array})['img'], wanted)


@pytest.mark.parametrize('size', [0, -8, 8.0, '8'])
def test_center_crop_refuses_sizes(size):
    with pytest.raises(ValueError, match='expected a positive integer'):
        build('CenterCropADM', size=size)


def test_center_crop_refuses_floats():
    with pytest.raises(ValueError, match='before Normalize'):
        build('CenterCropADM', size=8)({'img': np.zeros((9, 9, 3), np.float32)})


def test_center_crop_keeps_an_image_of_the_size():
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(center_crop_adm(Image.fromarray(array), 32)), array)


def load(path, **arguments):
    return build('LoadImage', **arguments)({'img_path': str(path)})['img']


def test_load_colour_models(photographs):
    for path in sorted(photographs.rglob('*.png')) + [photographs / 'people' / 'rocket.jpg']:
        if path.name not in ('alpha.png', 'deep.png'):
            assert np.array_equal(load(path), np.asarray(Image.open(path).convert('RGB')))
    grey = load(photographs / 'animals' / 'grey.jpg')
    assert grey.dtype == np.uint8 and grey.shape == (89, 131, 3)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    cmyk = load(photographs / 'animals' / 'cmyk.jpg')
    original = np.asarray(Image.open(photographs / 'animals' / 'chelsea.png').resize((131, 89)))
    assert np.abs(cmyk.astype(int) - original).mean() < 12  # JPEG and a detour over a small image


def test_load_16_bits_keeps_the_range(photographs):
    deep = load(photographs / 'people' / 'deep.png')
    stored = np.asarray(Image.open(photographs / 'people' / 'deep.png')).astype(int)
    assert stored.max() > 255
    assert np.array_equal(deep[..., 1].astype(int), np.round(stored / 257).astype(int))


def test_load_transparency_over_white(photographs):
    got = load(photographs / 'people' / 'alpha.png').astype(float)
    with Image.open(photographs / 'people' / 'alpha.png') as image:
        colour, alpha = np.split(np.asarray(image).astype(float), [3], axis=2)
    expected = (colour * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(got - expected).max() <= 1


def test_load_exif_rotation(photographs):
    path = photographs / 'textures' / 'rotated.jpg'
    upright, stored = load(path), load(path, exif_rotation=False)
    assert np.array_equal(upright, np.rot90(stored, -1))


@pytest.mark.parametrize('value', [70000.0, -1.0])
def test_unknown_range_is_refused(value):
    for dtype in (np.int32, np.float32):
        with pytest.raises(ValueError, match='range is unknown'):
            to_rgb(Image.fromarray(np.full((2, 2), value, dtype)))


@pytest.mark.parametrize(
    'name, reason',
    [
        ('people/empty.jpg', 'the file is empty'),
        ('objects/text.jpg', 'no image format recognised'),
        ('textures/truncated.jpg', 'truncated'),
    ],
)
def test_corrupt_files_raise_the_named_error(photographs, name, reason):
    with pytest.raises(CorruptImageError, match=reason) as caught:
        load(photographs / name)
    assert caught.value.path == str(photographs / name)
    assert name in str(caught.value)


@pytest.mark.parametrize('name', ['a.jpg', 'a.eps'])
def test_only_formats_of_photographs_are_tried(tmp_path, monkeypatch, name):
    """An EPS, whatever its name, starts no other program."""
    Image.new('RGB', (4, 4)).save(tmp_path / 'a', 'EPS')
    (tmp_path / 'a').rename(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == 'EPS'  # Pillow alone would take it
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args: pytest.fail('was started'))
    with pytest.raises(CorruptImageError, match='no image format recognised'):
        load(tmp_path / name)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF', 'BMP', 'PPM', 'TIFF', 'WEBP', 'MPO'])
def test_formats_are_recognised_by_their_content(tmp_path, kind):
    Image.new('RGB', (6, 4), (200, 200, 200)).save(tmp_path / 'a', kind)
    assert np.abs(load(tmp_path / 'a').astype(int) - 200).max() <= 2


def test_missing_file_is_not_called_corrupt(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 'none.jpg')


def test_pack_equals_to_tensor_and_normalize():
    image = np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    item = build('PackImage')({'img': image, 'label': np.int64(3), 'img_path': 'x'})
    assert sorted(item) == ['inputs', 'label'] and item['label'] == 3
    expected = (torch.from_numpy(image).permute(2, 0, 1) / 255 - 0.5) / 0.5
    torch.testing.assert_close(item['inputs'], expected, rtol=0, atol=2e-7)
    normalize = build('Normalize', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
    packed = build('PackImage')(normalize({'img': image, 'label': 3}))
    torch.testing.assert_close(packed['inputs'], expected, rtol=0, atol=2e-7)


def test_flip_of_mmcv_in_the_pipeline():
    image = np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    flipped = build('RandomFlip', prob=1.0)({'img': image.copy(), 'label': 0})
    item = build('PackImage')(flipped)
    plain = build('PackImage')({'img': image, 'label': 0})
    assert torch.equal(item['inputs'], plain['inputs'].flip(-1))

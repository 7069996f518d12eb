"""PNG files that carry their request, and labelled grids."""

import pytest
import torch
from PIL import Image

from mmsparsedit.visualization import labelled_grid, read_request, save_image, under_headings


def test_an_image_carries_its_request(tmp_path):
    image = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    request = dict(seed=2**40, label=3, sampler=dict(type='DDIMSampler', num_steps=25))
    save_image(tmp_path / 'a' / 'x.png', image, request)
    assert read_request(tmp_path / 'a' / 'x.png') == request
    assert torch.equal(
        torch.tensor(list(Image.open(tmp_path / 'a' / 'x.png').tobytes())).view(4, 4, 3),
        image.permute(1, 2, 0).long(),
    )


def test_grid_enlarges_without_smoothing():
    images = [torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (10, 200, 90)]
    grid = labelled_grid(images, ['0', '1', '2'], columns=2, cell=64)
    assert grid.size == (2 * 68 + 4, 2 * 84 + 4)
    assert grid.getpixel((4 + 68 + 30, 4 + 16 + 30)) == (200, 200, 200)
    assert grid.getpixel((4 + 30, 4 + 84 + 16 + 30)) == (90, 90, 90)


@pytest.mark.parametrize(
    'beside,size,place', [(False, (100, 148), (20, 138)), (True, (160, 94), (120, 50))]
)
def test_pictures_stand_under_headings(beside, size, place):
    parts = [('a', Image.new('RGB', (100, 60), 'red')), ('b', Image.new('RGB', (60, 20), 'blue'))]
    sheet = under_headings(parts, beside)
    assert sheet.size == size
    assert sheet.getpixel(place) == (0, 0, 255) and sheet.getpixel((20, 50)) == (255, 0, 0)

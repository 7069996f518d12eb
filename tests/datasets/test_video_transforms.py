"""Temporal sampling, resize and crop against the reference's rules."""

import numpy as np
import pytest
import torch
from video_files import numbered_frame, write_video

from mmsparsedit.datasets import UCF101, FaceForensics, SkyTimelapse, TaichiHD
from mmsparsedit.datasets.transforms import (
    CenterCropClip,
    FlipClip,
    PackClip,
    ResizeClip,
    ResizeShortSide,
    SampleClip,
    ShortVideoError,
    clip_indices,
)

LINSPACE = [0, 3, 6, 9, 12, 15, 18, 21, 25, 28, 31, 34, 37, 40, 43, 47]


def test_linspace_is_no_clean_stride():
    assert clip_indices(48, 16, 3, 'linspace', 0) == LINSPACE
    assert clip_indices(200, 16, 3, 'linspace', 7) == [7 + i for i in LINSPACE]
    assert clip_indices(16, 16, 3, 'linspace', 0) == list(range(16))  # shorter than the window


def test_stride():
    assert clip_indices(60, 16, 3, 'stride', 5) == list(range(5, 53, 3))
    assert clip_indices(46, 16, 3, 'stride', 0) == list(range(0, 46, 3))


@pytest.mark.parametrize('total,begins', [(16, {0}), (48, {0}), (49, {0}), (51, {0, 1, 2})])
def test_random_windows(total, begins):
    """The reference draws from 0 to total - window - 1, both included."""
    sample = SampleClip(16, 3, 'linspace')
    np.random.seed(0)
    drawn = {sample({'total_frames': total})['frame_indices'][0] for _ in range(60)}
    assert drawn == begins


@pytest.mark.parametrize(
    'rule,minimum,needed', [('linspace', None, 16), ('stride', None, 46), ('stride', 49, 49)]
)
def test_short_videos(rule, minimum, needed):
    sample = SampleClip(16, 3, rule, min_frames=minimum)
    assert len(sample({'total_frames': needed})['frame_indices']) == 16
    with pytest.raises(ShortVideoError, match=f'{needed - 1} frames, a clip needs {needed}'):
        sample({'total_frames': needed - 1, 'video_path': 'a.mp4'})


@pytest.mark.parametrize('height,width', [(240, 320), (98, 160), (322, 300), (256, 256)])
def test_short_side_becomes_exactly_the_size(height, width):
    """98 pixels times 256 / 98 round down to 255; the reference then fails to crop."""
    clip = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    resized = ResizeShortSide(256)({'clip': clip})
    assert min(resized['clip'].shape[-2:]) == 256
    assert CenterCropClip(256)(resized)['clip'].shape == (2, 3, 256, 256)


def test_resize_is_bilinear_with_half_pixel_centres():
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    halved = ResizeShortSide(2)({'clip': ramp})['clip']
    assert torch.equal(halved, torch.tensor([0.5, 2.5, 4.5, 6.5]).expand(1, 1, 2, 4))
    assert torch.equal(ResizeClip(4)({'clip': ramp[..., :4]})['clip'], ramp[..., :4])


def test_crop_rounds_its_corner():
    columns = torch.arange(9.0).expand(1, 1, 4, 9)
    assert CenterCropClip()({'clip': columns})['clip'][0, 0, 0].tolist() == [2, 3, 4, 5]  # 2.5 -> 2
    columns = torch.arange(11.0).expand(1, 1, 4, 11)
    assert CenterCropClip(4)({'clip': columns})['clip'][0, 0, 0].tolist() == [
        4,
        5,
        6,
        7,
    ]  # 3.5 -> 4
    with pytest.raises(ValueError, match=r'Put ResizeShortSide\(5\) before it'):
        CenterCropClip(5)({'clip': columns})


def test_flip_takes_the_whole_clip():
    clip = torch.arange(6).view(2, 1, 1, 3)
    assert torch.equal(FlipClip(1.0)({'clip': clip})['clip'], clip.flip(-1))
    assert torch.equal(FlipClip(0.0)({'clip': clip})['clip'], clip)


def test_pack_scales_to_one():
    clip = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    item = PackClip()({'clip': clip, 'label': 3})
    assert item['inputs'].flatten().tolist() == [-1, 1] and item['label'] == 3
    assert 'label' not in PackClip()({'clip': clip})
    with pytest.raises(ValueError, match='got frames of 1 x 1 pixels, expected 256 x 256'):
        PackClip((256, 256))({'clip': clip, 'video_path': 'a'})


def save_frames(folder, count, side=64):
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(numbered_frame(number % 64, side)).save(folder / f'f_{number:05d}.png')


def test_the_four_data_sets(tmp_path):
    pytest.importorskip('av')
    for name in ('ucf/B/x.avi', 'ucf/A/y.avi', 'ucf/A/z.avi'):
        write_video(tmp_path / name, 20, 'mpeg4')
    write_video(tmp_path / 'ffs' / 'x.mp4', 50, 'mpeg4')
    save_frames(tmp_path / 'sky' / 'one' / 'two', 49)
    save_frames(tmp_path / 'sky' / 'short', 48)
    save_frames(tmp_path / 'taichi' / 'one', 46, side=256)
    save_frames(tmp_path / 'taichi' / 'short', 45, side=256)

    ucf = UCF101(tmp_path / 'ucf', num_classes=2)
    assert ucf.metainfo['classes'] == ('A', 'B')
    assert [ucf[i]['label'] for i in range(3)] == [0, 0, 1]
    assert ucf[0]['inputs'].shape == (16, 3, 256, 256)
    with pytest.raises(ValueError, match='got 2 class folders, expected 101'):
        UCF101(tmp_path / 'ucf')

    ffs = FaceForensics(tmp_path / 'ffs')
    assert set(ffs[0]) == {'inputs'} and ffs[0]['inputs'].shape == (16, 3, 256, 256)

    sky = SkyTimelapse(tmp_path / 'sky')
    assert sky[0]['inputs'].shape == (16, 3, 256, 256) and len(sky) == 2
    assert sky.count()['good'] == 1
    sky[1]
    assert sky.skipped()['too short'] == ['short']

    taichi = TaichiHD(tmp_path / 'taichi')
    assert taichi[1]['inputs'].shape == (16, 3, 256, 256)
    assert taichi.skipped() == {'too short': ['short'], 'damaged': []}


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder of videos'):
        FaceForensics(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match='holds no videos: expected files ending in .mp4'):
        FaceForensics(tmp_path)
    with pytest.raises(ValueError, match="rule must be one of .*, got 'even'"):
        SampleClip(rule='even')
    (tmp_path / 'loose.mp4').touch()
    with pytest.raises(ValueError, match="got 'loose.mp4' outside any class folder"):
        UCF101(tmp_path)

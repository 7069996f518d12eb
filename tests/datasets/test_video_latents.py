"""Frames of videos through the extraction, and clips cut from their latents."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from video_files import read_number, write_video

from mmsparsedit.datasets import VideoFrames, VideoLatents
from mmsparsedit.datasets.extraction import extract, make_settings

pytest.importorskip('av')
LENGTHS = {'A/a.mp4': 20, 'B/b.mp4': 30, 'B/short.mp4': 5}


class AverageEncoder:
    """Mean: every 8 x 8 pixels averaged, of three channels; log-variance: -20."""

    downsampling, scale_factor, dtype = 8, 1.0, torch.float32

    def encode(self, images):
        mean = nn.functional.avg_pool2d(images, 8)
        return mean, torch.full_like(mean, -20.0)

    def digest(self) -> str:
        return 'average'


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp('videos')
    for name, length in LENGTHS.items():
        write_video(root / name, length)
    (root / 'A' / 'text.mp4').write_text('no video\n' * 50)
    return root


@pytest.fixture(scope='module')
def latents(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp('latents') / 'out'
    frames = VideoFrames(videos, max_corrupt_share=0.5)
    encoder = AverageEncoder()
    settings = make_settings(
        frames, encoder, pipeline=[], name='average', dtype='fp32', shard_size=12, batch_size=8
    )
    assert extract(frames, encoder, folder, settings)
    return folder


def test_video_frames(videos):
    frames = VideoFrames(videos, max_corrupt_share=0.5)
    assert len(frames) == 50 and frames.metainfo['classes'] == ('A/a.mp4', 'B/b.mp4')
    assert set(frames.skipped) == {'A/text.mp4', 'B/short.mp4'}
    assert frames.skipped['B/short.mp4'] == '5 frames, a clip needs 16'
    for index, video, number in ((0, 0, 0), (19, 0, 19), (20, 1, 0), (49, 1, 29), (33, 1, 13)):
        item = frames.read(index)
        picture = ((item['inputs'] + 1) * 127.5).permute(1, 2, 0).numpy()
        assert (item['label'], read_number(picture)) == (video, number)
    with pytest.raises(ValueError, match=r'of 4 videos 1 are damaged .* at most 1.00%'):
        VideoFrames(videos)


def shown(clip: torch.Tensor) -> list[int]:
    """Numbers in latents (F, 6, 8, 8) of ``AverageEncoder``, whose bars are ten pixels wide."""
    mean = ((clip[:, :3] + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    wide = mean.repeat(8, axis=1).repeat(8, axis=2)
    return [read_number(frame) for frame in wide]


def read_back(latents, **changes) -> VideoLatents:
    arguments = dict(num_frames=4, frame_interval=3, rule='stride', flip=False, num_classes=2)
    return VideoLatents(latents, **{**arguments, **changes})


def test_clips_are_frames_of_one_video_at_the_interval(latents):
    dataset = read_back(latents)
    assert len(dataset) == 2 and dataset.metainfo['classes'] == ('A', 'B')
    np.random.seed(0)
    begins = set()
    for _ in range(40):
        item = dataset[1]
        assert item['inputs'].shape == (4, 6, 8, 8) and item['label'] == 1
        first = shown(item['inputs'])[0]
        assert shown(item['inputs']) == list(range(first, first + 12, 3))
        begins.add(first)
    assert begins == set(range(30 - 12))  # the reference's windows: 0 to total - window - 1


def test_images_behind_the_clip_come_from_all_videos(latents):
    dataset = read_back(latents, num_images=8)
    np.random.seed(0)
    item = dataset[0]
    assert item['inputs'].shape == (12, 6, 8, 8) and item['image_label'].shape == (8,)
    assert set(item['image_label'].tolist()) == {0, 1}
    numbers = np.array(shown(item['inputs'][4:]))
    assert (numbers[item['image_label'].numpy() == 0] < 20).all()
    assert len(set(numbers)) > 4


def test_a_clip_is_mirrored_whole(latents):
    dataset = read_back(latents, flip=None)
    np.random.seed(0)
    flipped = 0
    for _ in range(20):
        clip = dataset[0]['inputs']
        # the first bar, bit 0, of frame 3k + 1 stands left, or right in a mirrored clip
        numbers = shown(clip)
        mirrored = shown(clip.flip(-1))
        plain = np.diff(numbers).tolist() == [3, 3, 3]
        assert plain != (np.diff(mirrored).tolist() == [3, 3, 3])
        flipped += not plain
    assert 4 <= flipped <= 16


def test_refusals(latents, tmp_path):
    with pytest.raises(ValueError, match='got 2 videos of at most 30 frames, expected 46'):
        read_back(latents, num_frames=16)
    with pytest.raises(ValueError, match='got 2 class folders, expected 101'):
        read_back(latents, num_classes=101)
    assert read_back(latents, num_frames=8).left_out == 1
    index = json.loads((latents / 'index.json').read_text())
    assert index['provenance']['source']['num_images'] == 50
    assert 'label' not in read_back(latents, num_classes=None)[0]


def test_tool_writes_videos_that_read_back(tmp_path):
    """make_moving_digits.py: the decoded frames are the made ones up to the codec's loss."""
    from mmsparsedit.datasets import VideoDataset
    from mmsparsedit.datasets.video_digits import VELOCITIES, moving_digits

    tool = Path(__file__).parents[2] / 'tools/dataset_converters/make_moving_digits.py'
    main = runpy.run_path(str(tool))['main']
    options = ['--out', str(tmp_path / 'd'), '--num-videos', '30']
    assert main(options) == 0
    videos, labels, positions = moving_digits(30)
    steps = np.diff(positions, axis=1)
    assert {tuple(step) for step in steps.reshape(-1, 2)} <= set(VELOCITIES)
    assert positions.min() >= 0 and positions.max() <= 8
    dataset = VideoDataset(
        tmp_path / 'd',
        num_classes=len(set(labels)),
        clip=dict(num_frames=8, frame_interval=1, rule='stride'),
        pipeline=[
            dict(type='ResizeClip', size=16),
            dict(type='GrayClip'),
            dict(type='PackClip'),
        ],
    )
    for index in range(30):
        item, path = dataset[index], Path(dataset.relative_path(index))
        number = int(path.stem)
        assert path.parent.name == str(labels[number])
        pixels = (item['inputs'][:, 0].numpy() + 1) * 127.5
        assert np.abs(pixels - videos[number]).max() <= 12
    assert dataset.count()['good'] == 30
    with pytest.raises(ValueError, match='is not empty: name another folder'):
        main(options)

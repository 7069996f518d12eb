"""What may stand in a folder of data besides sound files: pipes, links, giants, crowds."""

import os
import resource
import struct
import zlib

import pytest
import torch
from PIL import Image

from mmsparsedit.datasets import CaptionedImages, ImageNet, VideoDataset
from mmsparsedit.datasets.latent_format import ShardFiles, max_open_shards
from mmsparsedit.datasets.transforms.loading import CorruptImageError, open_image
from mmsparsedit.datasets.video_reader import open_video
from mmsparsedit.models.checkpoints import read_checkpoint


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)


def giant_png(side):
    """A few kilobytes that announce ``side`` x ``side`` black pixels, and would give them."""
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    row = zlib.compress(bytes(1 + 3 * side))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        chunk(*part) for part in ((b'IHDR', header), (b'IDAT', row), (b'IEND', b''))
    )


@pytest.fixture
def folder(tmp_path):
    """A class folder with one sound image among what is none."""
    place = tmp_path / 'a'
    place.mkdir()
    Image.new('RGB', (4, 4)).save(place / 'sound.png')
    os.mkfifo(place / 'pipe.jpg')
    (place / 'link.jpg').symlink_to('nowhere.jpg')
    (place / 'folder.jpg').mkdir()
    (place / 'giant.png').write_bytes(giant_png(13_300))
    return tmp_path


def test_entries_that_are_no_images_are_named(folder):
    reasons = {
        'pipe.jpg': 'no regular file', 'link.jpg': 'a link to nothing',
        'folder.jpg': 'no regular file', 'giant.png': '13300 x 13300 pixels',
    }  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(CorruptImageError, match=reason) as caught:
            open_image(folder / 'a' / name)
        assert name in str(caught.value)


def test_they_are_replaced_and_counted(folder):
    pipeline = [dict(type='LoadImage'), dict(type='PackImage')]
    data = ImageNet(str(folder), pipeline=pipeline, max_corrupt_share=0.8)
    assert len(data) == 4  # a folder is no file
    assert all(data[i]['inputs'].shape == (3, 4, 4) for i in range(4))
    assert data.num_damaged == 3


def test_a_caption_that_is_a_pipe_or_a_folder_is_skipped(tmp_path):
    for name in 'abcd':
        Image.new('RGB', (4, 4)).save(tmp_path / f'{name}.png')
    (tmp_path / 'a.txt').write_text('a cat')
    os.mkfifo(tmp_path / 'b.txt')
    (tmp_path / 'c.txt').mkdir()
    (tmp_path / 'd.txt').symlink_to('nowhere.txt')
    data = CaptionedImages(str(tmp_path), max_skipped_share=1.0)
    assert len(data) == 1 and data.caption(0) == 'a cat'
    assert [skipped['reason'] for skipped in data.skipped] == [
        'the caption is no regular file', 'the caption is a folder', 'the image has no caption',
    ]  # fmt: skip


def test_a_video_that_is_a_pipe_is_damaged(tmp_path):
    os.mkfifo(tmp_path / 'a.mp4')
    with pytest.raises(ValueError, match=r'a\.mp4 .*no regular file'):
        open_video(tmp_path / 'a.mp4')
    data = VideoDataset(str(tmp_path), clip=dict(num_frames=2), max_damaged_share=1.0)
    with pytest.raises(ValueError, match='1 damaged'):
        data[0]


def test_a_checkpoint_that_is_a_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        read_checkpoint(tmp_path / 'a.pth')


def test_more_shards_than_open_files(tmp_path):
    (tmp_path / 'shard').write_bytes(b'x')
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir('/proc/self/fd'))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(256, taken + 100), before[1]))
    try:
        files = ShardFiles([str(tmp_path / 'shard')] * 600)
        assert all(os.pread(files[k], 1, 0) == b'x' for k in range(600))
        assert len(files) <= max_open_shards() <= max(256, taken + 100) // 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_png_bytes_do_not_depend_on_the_order_of_keys(tmp_path):
    from mmsparsedit.evaluation.store import SampleStore
    from mmsparsedit.visualization import save_image

    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    one, other = (SampleStore(tmp_path / name, {}) for name in ('one', 'other'))
    one.add([dict(image=image, index=0, label=1, seed=2)])
    other.add([dict(seed=2, label=1, index=0, image=image)])
    save_image(tmp_path / 'one.png', image, dict(label=1, seed=2))
    save_image(tmp_path / 'other.png', image, dict(seed=2, label=1))
    for pair in (('one/000000.png', 'other/000000.png'), ('one.png', 'other.png')):
        assert len({(tmp_path / name).read_bytes() for name in pair}) == 1

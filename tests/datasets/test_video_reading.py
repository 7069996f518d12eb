"""Frames by number from real files, damaged files, and data loaders of both kinds of workers."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_files import numbered_frame, read_number, truncate, write_video

from mmsparsedit.datasets import VideoDataset
from mmsparsedit.datasets.transforms import CorruptVideoError
from mmsparsedit.datasets.video_reader import FrameFolder, VideoFile, find_videos, open_video

av = pytest.importorskip('av')
ORDER = [37, 0, 5, 5, 39, 12, 11, 23]


def needs(codec: str):
    available = codec in av.codecs_available
    return pytest.mark.skipif(not available, reason=f'this PyAV has no encoder {codec}')


FILES = [
    pytest.param('a.mp4', 'mpeg4', False, id='mpeg4'),
    pytest.param('a.avi', 'mpeg4', False, id='avi'),
    pytest.param('a.mp4', 'libx264', False, id='h264', marks=needs('libx264')),
    pytest.param('a.mp4', 'libx264', True, id='vfr', marks=needs('libx264')),
]


@pytest.mark.parametrize('backend', ['decord', 'av'])
@pytest.mark.parametrize('name,codec,variable', FILES)
def test_frames_by_number(tmp_path, monkeypatch, name, codec, variable, backend):
    path = write_video(tmp_path / name, 40, codec, variable)
    reader = VideoFile(path)
    if backend == 'av':
        reader._fall_back(CorruptVideoError(str(path), 'asked for'))
    assert reader.backend == backend and len(reader) == 40
    frames = reader.read(ORDER)
    assert frames.dtype == np.uint8 and frames.shape == (8, 64, 64, 3)
    assert [read_number(frame) for frame in frames] == ORDER
    for number in (39, 17, 3):  # alone, backwards
        assert read_number(VideoFile(path).read([number])[0]) == number


@pytest.mark.skipif('libsvtav1' not in av.codecs_available, reason='no AV1 encoder')
def test_av1_is_read_by_the_fallback(tmp_path):
    path = write_video(tmp_path / 'a.mp4', 20, 'libsvtav1')
    reader = open_video(path)
    assert reader.backend == 'av' and len(reader) == 20
    assert [read_number(frame) for frame in reader.read([19, 2, 7])] == [19, 2, 7]


def test_without_pyav_the_error_names_it(tmp_path, monkeypatch):
    path = tmp_path / 'text.mp4'
    path.write_text('no video\n' * 50)
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(CorruptVideoError, match=r'PyAV reads more formats: pip install'):
        VideoFile(path)


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty'])
def test_damaged_files(tmp_path, damage):
    path = tmp_path / 'a.mp4'
    if damage == 'truncated':
        truncate(write_video(path, 60, table_first=False), 0.6)
    else:
        path.write_text('no video\n' * 50 if damage == 'text' else '')
    with pytest.raises(CorruptVideoError, match='cannot be read as a video'):
        open_video(path)


def test_the_intact_start_of_a_truncated_file_is_read_by_the_fallback(tmp_path):
    path = truncate(write_video(tmp_path / 'a.mp4', 60, crf='0'), 0.6)
    reader = open_video(path)
    assert reader.backend == 'av' and 20 < len(reader) < 40
    last = len(reader) - 2  # the frame that was cut through is the last that is counted
    assert [read_number(frame) for frame in reader.read([0, last])] == [0, last]
    with pytest.raises(IndexError, match='got numbers 59 to 59'):
        reader.read([59])


def test_a_number_out_of_range_is_refused(tmp_path):
    reader = open_video(write_video(tmp_path / 'a.mp4', 3))
    with pytest.raises(IndexError, match='has 3 frames, got numbers 0 to 3'):
        reader.read([0, 3])


def save_frames(folder, numbers, name='clip_{:d}.png') -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)).save(folder / name.format(number))


def test_frame_folder_orders_by_the_number_at_the_end(tmp_path):
    save_frames(tmp_path / 'a', [9, 10, 2, 31])
    reader = open_video(tmp_path / 'a')
    assert isinstance(reader, FrameFolder)
    assert [read_number(frame) for frame in reader.read(range(4))] == [2, 9, 10, 31]
    (tmp_path / 'a' / 'clip_9.png').write_bytes(b'')
    with pytest.raises(CorruptVideoError, match=r'clip_9.png cannot be read'):
        reader.read([1])
    assert read_number(reader.read([2])[0]) == 10


def test_find_videos(tmp_path):
    for name in ('b/2.mp4', 'b/10.MP4', 'a/x.avi', 'a/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path, 'files') == ['a/x.avi', 'b/10.MP4', 'b/2.mp4']
    save_frames(tmp_path / 'c' / 'deep', [1])
    assert find_videos(tmp_path, 'frames') == ['c/deep']
    with pytest.raises(ValueError, match="layout must be 'files' or 'frames', got 'mp4'"):
        find_videos(tmp_path, 'mp4')


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    """Two good videos, two for the fallback, and everything that can be wrong with a file."""
    root = tmp_path_factory.mktemp('mixed')
    write_video(root / 'a_h264.mp4', 40)
    write_video(root / 'b_one_frame.mp4', 1)
    write_video(root / 'c_mpeg4.mp4', 40, 'mpeg4')
    (root / 'd_text.mp4').write_text('no video\n' * 50)
    truncate(write_video(root / 'e_truncated.mp4', 60, table_first=False), 0.5)
    truncate(write_video(root / 'g_truncated.mp4', 60, crf='0'), 0.7)
    if 'libsvtav1' in av.codecs_available:
        write_video(root / 'f_av1.mp4', 40, 'libsvtav1')
    return root


def numbers(clip: torch.Tensor) -> list[int]:
    frames = ((clip + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    return [read_number(frame) for frame in frames]


@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_bad_videos_are_skipped_and_counted_over_workers(mixed, start):
    dataset = VideoDataset(
        mixed, clip=dict(num_frames=8, frame_interval=2, rule='stride'), max_damaged_share=0.5
    )
    dataset.load(0)  # the parent has used decord before it forks
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start)
    clips = [clip for batch in loader for clip in batch['inputs']]
    assert len(clips) == len(dataset)
    for clip in clips:
        shown = numbers(clip)
        assert shown == list(range(shown[0], shown[0] + 16, 2))
    has_av1 = 'libsvtav1' in av.codecs_available
    assert dataset.skipped() == {
        'too short': ['b_one_frame.mp4'],
        'damaged': ['d_text.mp4', 'e_truncated.mp4'],
    }
    counts = dataset.count()
    assert (counts['good'], counts['read by the fallback']) == (2, 1 + int(has_av1))
    assert '1 too short, 2 damaged' in dataset.report()


def test_too_many_damaged_videos_end_the_run(mixed):
    dataset = VideoDataset(mixed, clip=dict(num_frames=8, frame_interval=1))
    with pytest.raises(ValueError, match=r'got 1 damaged videos of \d, expected at most 1.00%'):
        [dataset[i] for i in range(len(dataset))]
    short = VideoDataset(mixed, clip=dict(num_frames=50), max_damaged_share=1)
    with pytest.raises(ValueError, match=r'not one of the videos .* can serve: .* too short'):
        short[0]

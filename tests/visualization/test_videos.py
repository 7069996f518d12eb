"""Videos of samples on disk: files that decode to what was written, and contact sheets."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmsparsedit.datasets.video_reader import open_video
from mmsparsedit.visualization import CODECS, contact_sheet, save_gif, save_mp4, videos


def ramp(frames: int = 6, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Frame k is k * 40 everywhere; the upper half of the first channel is 20 brighter."""
    video = torch.arange(frames, dtype=torch.uint8).view(-1, 1, 1, 1) * 40
    video = video.repeat(1, channels, side, side)
    video[:, 0, : side // 2] += 20
    return video


@pytest.mark.parametrize('codec', CODECS)
def test_mp4_decodes_to_what_was_written(tmp_path, codec):
    if codec == 'h264':
        av = pytest.importorskip('av')
    video = ramp()
    save_mp4(tmp_path / 'deep' / 'a.mp4', video, fps=8, codec=codec, request={'seed': 3}, cell=1)
    reader = open_video(tmp_path / 'deep' / 'a.mp4')
    frames = torch.from_numpy(reader.read(range(6))).permute(0, 3, 1, 2)
    assert reader.backend == 'decord' and frames.shape == video.shape
    assert (frames.int() - video.int()).abs().float().mean() < 4
    if codec == 'h264':
        with av.open(str(tmp_path / 'deep' / 'a.mp4')) as container:
            assert float(container.streams.video[0].average_rate) == 8
            assert json.loads(container.metadata['comment']) == {'mmsparsedit': {'seed': 3}}


def test_odd_sides_gain_a_row_and_a_column(tmp_path):
    save_mp4(tmp_path / 'a.mp4', ramp(channels=1, side=65)[..., :63], cell=1)
    assert open_video(tmp_path / 'a.mp4').read([0]).shape == (1, 66, 64, 3)


def test_a_small_video_is_enlarged_unsmoothed_and_plays_in_browsers(tmp_path):
    av = pytest.importorskip('av')
    save_mp4(tmp_path / 'a.mp4', ramp(side=20))
    with av.open(str(tmp_path / 'a.mp4')) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
    frames = open_video(tmp_path / 'a.mp4').read(range(6)).astype(int)
    assert frames.shape == (6, 260, 260, 3)  # 13 times 20
    enlarged = ramp(side=20).permute(0, 2, 3, 1).numpy().repeat(13, 1).repeat(13, 2)
    assert abs(frames - enlarged).mean() < 4


def test_without_an_encoder_one_line_says_what_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(videos, 'default_codec', lambda: 'mpeg4')
    videos._chosen_codec.cache_clear()
    for name in 'ab':
        save_mp4(tmp_path / f'{name}.mp4', ramp())
    videos._chosen_codec.cache_clear()
    assert [r.getMessage().count('\n') for r in caplog.records] == [0]
    assert "pip install 'mmsparsedit[video]'" in caplog.text


def test_refused_videos(tmp_path):
    with pytest.raises(ValueError, match='expected \\(F, C, H, W\\) of torch.uint8'):
        save_mp4(tmp_path / 'a.mp4', ramp().float())
    with pytest.raises(ValueError, match='codec must be one of'):
        save_mp4(tmp_path / 'a.mp4', ramp(), codec='av1')


def test_gif_holds_every_frame(tmp_path):
    save_gif(tmp_path / 'a.gif', ramp(), fps=8, cell=64)
    with Image.open(tmp_path / 'a.gif') as gif:
        assert (gif.n_frames, gif.size, gif.info['duration']) == (6, (64, 64), 120)
        gif.seek(4)
        assert np.asarray(gif.convert('RGB'))[60, 10].tolist() == [160, 160, 160]


def test_contact_sheet_shows_frames_in_order():
    sheet = np.asarray(contact_sheet([ramp(), ramp()], ['0', '1'], max_frames=3, cell=32))
    row = sheet[sheet.shape[0] // 4 + 12, :, 2]
    shown = [int(value) for value in row if value in (0, 80, 120, 200)]
    # frames 0, 2 and 5 of six, evenly spaced and rounded
    assert sorted(set(shown[-96:])) == [0, 80, 200]
    assert sheet.shape[0] == 2 * (32 + 4)

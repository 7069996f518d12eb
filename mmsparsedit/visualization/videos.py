"""Videos of samples: mp4 files, GIFs for looking at, and contact sheets of their frames."""

import functools
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmsparsedit.utils.files import atomic_write

from .pictures import METADATA_KEY, enlarged

CODECS = ('h264', 'mpeg4')
VIEW_WIDTH = 256  # pixels: what is narrower is enlarged in files to be looked at


def default_codec() -> str:
    """``'h264'`` where PyAV and its libx264 are installed, else OpenCV's ``'mpeg4'``."""
    try:
        import av
    except ImportError:
        return 'mpeg4'
    return 'h264' if 'libx264' in av.codecs_available else 'mpeg4'


@functools.cache
def _chosen_codec() -> str:
    """``default_codec()``; one line of warning, once, where browsers will not play its files."""
    codec = default_codec()
    if codec != 'h264':
        logging.getLogger(__name__).warning(
            'mp4 files are written as mpeg4, which browsers do not play: PyAV with libx264 is not '
            "installed. For H.264: pip install 'mmsparsedit[video]'."
        )
    return codec


def save_mp4(
    path: str | os.PathLike,
    video: Tensor,
    fps: int = 8,
    codec: str | None = None,
    quality: int = 10,
    request: Mapping | None = None,
    cell: int = VIEW_WIDTH,
) -> None:
    """Write uint8 (F, C, H, W), one or three channels, as mp4.

    Args:
        fps: frames per second, 8 as Latte's samples.
        codec: ``'h264'`` (PyAV, plays in browsers) or ``'mpeg4'`` (OpenCV); None is
            ``default_codec()``. Both need even sides; odd ones gain a repeated row or column.
        quality: H.264's constant rate factor, 0 lossless ... 51; OpenCV chooses its own.
        request: what the video was made for, as JSON in the file's comment (H.264).
        cell: smallest width in pixels; smaller videos are enlarged by a whole factor, unsmoothed.
            1 writes the pixels as they are, for data to train on.

    Raises:
        ValueError: another dtype, shape or codec.
        OSError: the file cannot be written.
    """
    frames = _frames(video)  # (F, H, W, 3)
    factor = max(1, math.ceil(cell / frames.shape[2]))
    frames = _even(frames.repeat(factor, axis=1).repeat(factor, axis=2))
    codec = codec or _chosen_codec()
    if codec not in CODECS:
        raise ValueError(f'codec must be one of {CODECS}, got {codec!r}.')
    with atomic_write(path, durable=False) as beside:
        if codec == 'h264':
            _write_h264(beside, frames, fps, quality, request)
        else:
            _write_mpeg4(beside, frames, fps, path)


def _write_h264(
    path: Path, frames: np.ndarray, fps: int, quality: int, request: Mapping | None
) -> None:
    import av

    with av.open(str(path), 'w', format='mp4') as container:
        if request is not None:
            container.metadata['comment'] = json.dumps(
                {METADATA_KEY: dict(request)}, sort_keys=True
            )
        options = {'crf': str(quality), 'x264-params': 'log-level=error'}
        stream = container.add_stream('libx264', rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def _write_mpeg4(beside: Path, frames: np.ndarray, fps: int, path: str | os.PathLike) -> None:
    import cv2

    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:  # OpenCV goes by the ending of the name
        file = os.path.join(folder, 'video.mp4')
        writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height))
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))  # OpenCV takes BGR
        writer.release()
        written = cv2.VideoCapture(file).get(cv2.CAP_PROP_FRAME_COUNT)  # it tells no error
        if written != len(frames):
            raise OSError(
                f'{path} cannot be written: OpenCV wrote {max(written, 0):.0f} of {len(frames)} '
                'frames, since it has no mpeg4 encoder or there is no room. PyAV writes videos '
                'too: pip install "mmsparsedit[video]".'
            )
        shutil.copyfile(file, beside)


def save_gif(path: str | os.PathLike, video: Tensor, fps: int = 8, cell: int = VIEW_WIDTH) -> None:
    """Write uint8 (F, C, H, W) as an endless GIF, 256 colours; for looking, not for measuring.

    Args:
        cell: smallest width in pixels; smaller videos are enlarged by a whole factor.
    """
    frames = [enlarged(frame, cell) for frame in video]
    how = dict(save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)
    with atomic_write(path, durable=False) as beside:
        frames[0].save(beside, 'GIF', **how)


def contact_sheet(
    videos: Sequence[Tensor],
    captions: Sequence[str],
    max_frames: int = 8,
    columns: int = 1,
    cell: int = 64,
) -> Image.Image:
    """Videos uint8 (F, C, H, W) of one shape, each a row of frames behind its caption.

    Args:
        max_frames: longer videos show this many, evenly spaced.
        columns: rows stand in so many columns.
        cell: smallest width of a frame; smaller ones are enlarged by a whole factor, unsmoothed.
    """
    shown = np.linspace(0, len(videos[0]) - 1, min(max_frames, len(videos[0]))).round().astype(int)
    width, height = enlarged(videos[0][0], cell).size
    font = ImageFont.load_default(size=14)
    margin = 8 + max(math.ceil(font.getlength(caption)) for caption in captions)
    gap, rows = 2, math.ceil(len(videos) / columns)
    block = margin + len(shown) * (width + gap) + 8
    sheet = Image.new('RGB', (columns * block, rows * (height + 2 * gap)), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        left, top = i // rows * block, i % rows * (height + 2 * gap) + gap
        draw.text((left + 4, top + height // 2 - 8), caption, fill='black', font=font)
        for k, number in enumerate(shown):
            frame = enlarged(video[number], cell).convert('RGB')
            sheet.paste(frame, (left + margin + k * (width + gap), top))
    return sheet


def _frames(video: Tensor) -> np.ndarray:
    """uint8 (F, C, H, W) -> (F, H, W, 3)."""
    if video.ndim != 4 or video.shape[1] not in (1, 3) or str(video.dtype) != 'torch.uint8':
        raise ValueError(
            f'got a video of shape {tuple(video.shape)} and {video.dtype}, expected (F, C, H, W) '
            'of torch.uint8 with one or three channels.'
        )
    return np.ascontiguousarray(video.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy())


def _even(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode='edge')

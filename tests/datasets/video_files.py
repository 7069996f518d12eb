"""Video files whose frames show their own number in binary, as bright and dark bars."""

from fractions import Fraction
from pathlib import Path

import numpy as np

SIDE, BITS = 64, 6


def numbered_frame(number: int, side: int = SIDE) -> np.ndarray:
    """(side, side, 3) uint8."""
    frame = np.full((side, side, 3), 40, np.uint8)
    step = side // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            frame[side // 8 : -side // 8, bit * step + 1 : (bit + 1) * step - 1] = 220
    return frame


def read_number(frame: np.ndarray) -> int:
    """The number in a frame (H, W, 3) that went through a codec, or was resized."""
    height, width = frame.shape[:2]
    rows = slice(height // 3, 2 * height // 3)
    step = SIDE // BITS * width / SIDE
    columns = [int((bit + 0.5) * step) for bit in range(BITS)]
    return sum(1 << bit for bit, c in enumerate(columns) if frame[rows, c - 1 : c + 2].mean() > 130)


def write_video(
    path: Path,
    num_frames: int,
    codec: str = 'libx264',
    variable_rate: bool = False,
    table_first: bool = True,
    **options,
) -> Path:
    """A video of numbered frames; with ``variable_rate`` they last 20 to 130 ms by turns.

    With ``table_first`` the table of frames survives a truncation of the file.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    flags = {'movflags': 'faststart'} if table_first else {}
    with av.open(str(path), 'w', options=flags) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = 'yuv420p'
        stream.gop_size = 8
        base = Fraction(1, 1000)
        stream.codec_context.time_base = base
        time = 0
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format='rgb24')
            frame.pts, frame.time_base = time, base
            time += (20 if number % 3 else 130) if variable_rate else 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def truncate(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path

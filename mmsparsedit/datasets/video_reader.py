"""Frames of videos by number: files through decord with PyAV behind it, and folders of frames."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .transforms.loading import IMAGE_EXTENSIONS, CorruptImageError, LoadImage
from .transforms.video import CorruptVideoError

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


def open_video(path: str | os.PathLike) -> VideoFile | FrameFolder:
    """A reader of a video file, or of a folder of frame images; both have ``len`` and ``read``."""
    return FrameFolder(path) if os.path.isdir(path) else VideoFile(path)


class VideoFile:
    """Frames of a video file, counted from 0 in the order they are shown.

    decord reads it; where it cannot be imported PyAV does, and where that is installed also what
    decord cannot read (AV1, some damaged files), by decoding from the first frame. Variable frame
    rates make no difference: frames are counted, not timed.

    Attributes:
        backend: ``'decord'`` or ``'av'``, whichever read last.

    Raises:
        FileNotFoundError: no such file.
        CorruptVideoError: neither reads it, at construction or at ``read``.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            if os.path.lexists(self.path):
                raise CorruptVideoError(self.path, 'it is no regular file, or a link to nothing')
            raise FileNotFoundError(f'there is no video {self.path!r}')
        self._reader: _Decord | _PyAV
        if not has_decord():
            self.backend, self._reader = 'av', _PyAV(self.path)
            return
        self.backend = 'decord'
        try:
            self._reader = _Decord(self.path)
        except CorruptVideoError as error:
            self._fall_back(error)

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of these numbers, repeats and any order allowed: uint8 (n, H, W, 3) RGB."""
        _check_indices(indices, len(self), self.path)
        if self.backend == 'decord':
            try:
                return self._reader.read(indices)
            except CorruptVideoError as error:
                self._fall_back(error)
        return self._reader.read(indices)

    def _fall_back(self, error: CorruptVideoError) -> None:
        try:
            import av  # noqa: F401
        except ImportError as missing:
            reason = f'{error.reason}; PyAV reads more formats: pip install "mmsparsedit[video]"'
            raise CorruptVideoError(self.path, reason) from missing
        self._reader = _PyAV(self.path)
        self.backend = 'av'


@functools.cache
def has_decord() -> bool:
    """Whether decord can be imported: for some systems there is none, on others it is broken."""
    try:
        import cv2  # noqa: F401, decord must be imported after cv2
        import decord  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


class _Decord:
    def __init__(self, path: str) -> None:
        import decord

        self.path = path
        self._errors = (RuntimeError, decord.DECORDError)
        try:
            self._reader = decord.VideoReader(path, num_threads=1)
            self._length = len(self._reader)
        except self._errors as error:
            raise CorruptVideoError(path, _one_line(error)) from error

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> np.ndarray:
        try:
            return self._reader.get_batch(list(indices)).asnumpy()
        except self._errors as error:
            raise CorruptVideoError(self.path, _one_line(error)) from error


class _PyAV:
    def __init__(self, path: str) -> None:
        try:
            import av
        except ImportError as error:
            raise ImportError(
                'videos are read by decord or PyAV, and neither can be imported: pip install '
                '"mmsparsedit[video]"'
            ) from error

        self.path = path
        try:
            # counted, not taken from the header, which a shortened file keeps
            with av.open(path) as container:
                stream = container.streams.video[0]
                self._length = sum(packet.size > 0 for packet in container.demux(stream))
        except (av.FFmpegError, IndexError) as error:
            raise CorruptVideoError(path, _one_line(error)) from error

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> np.ndarray:
        import av

        wanted, found = set(indices), {}
        try:
            with av.open(self.path) as container:
                for number, frame in enumerate(container.decode(container.streams.video[0])):
                    if number in wanted:
                        found[number] = frame.to_ndarray(format='rgb24')
                    if len(found) == len(wanted):
                        break
        except av.FFmpegError as error:
            raise CorruptVideoError(self.path, _one_line(error)) from error
        if len(found) < len(wanted):
            missing = min(wanted - set(found))
            raise CorruptVideoError(
                self.path, f'{self._length} frames announced, frame {missing} missing'
            )
        return np.stack([found[index] for index in indices])


class FrameFolder:
    """Frames of a video stored as images of one folder, in the order of their numbers.

    The number is the one at the end of a name's stem (``clip_00017.jpg``), as SkyTimelapse's
    frames have it; files without one come last, by name.

    Attributes:
        files: names of the images, in order.

    Raises:
        FileNotFoundError: no such folder.
        CorruptVideoError: no image in it; an image that cannot be decoded, or frames of different
            sizes, at ``read``.
    """

    backend = 'images'

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.isdir(self.path):
            raise FileNotFoundError(f'there is no folder of frames {self.path!r}')
        with os.scandir(self.path) as entries:
            names = [e.name for e in entries if e.name.lower().endswith(IMAGE_EXTENSIONS)]
        if not names:
            raise CorruptVideoError(self.path, 'no frame images')
        self.files = sorted(names, key=self.order)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of these numbers, uint8 (n, H, W, 3) RGB."""
        _check_indices(indices, len(self), self.path)
        frames = []
        for index in indices:
            try:
                frames.append(self.read_frame(os.path.join(self.path, self.files[index])))
            except CorruptImageError as error:
                raise CorruptVideoError(self.path, str(error)) from error
        sizes = sorted({frame.shape[:2] for frame in frames})
        if len(sizes) > 1:
            raise CorruptVideoError(self.path, f'frames of different sizes {sizes}')
        return np.stack(frames)

    @staticmethod
    def order(name: str) -> tuple | list:
        """Sort key of a file's name."""
        number = re.search(r'(\d+)$', os.path.splitext(name)[0])
        return (0, int(number[1]), name) if number else (1, 0, name)

    @staticmethod
    def read_frame(path: str) -> np.ndarray:
        """Pixels (H, W, 3) uint8 of a frame, upright, transparency over white."""
        return LoadImage()({'img_path': path})['img']


def find_videos(
    root: str | os.PathLike, layout: str, extensions: tuple[str, ...] = VIDEO_EXTENSIONS
) -> list[str]:
    """Videos below a folder, as sorted paths relative to it with forward slashes.

    Args:
        layout: ``'files'`` for video files by their extension, ``'frames'`` for the folders that
            hold images.
        extensions: of video files.
    """
    if layout not in ('files', 'frames'):
        raise ValueError(f"layout must be 'files' or 'frames', got {layout!r}.")
    extensions = extensions if layout == 'files' else IMAGE_EXTENSIONS
    found = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        names = [name for name in files if name.lower().endswith(extensions)]
        if layout == 'frames':
            names = [''] if names else []
        found += [os.path.normpath(os.path.join(folder, name)) for name in names]
    return sorted(Path(os.path.relpath(path, root)).as_posix() for path in found)


def _check_indices(indices: Sequence[int], length: int, path: str) -> None:
    if len(indices) and not 0 <= min(indices) <= max(indices) < length:
        raise IndexError(
            f'{path} has {length} frames, got numbers {min(indices)} to {max(indices)}'
        )


def _one_line(error: Exception) -> str:
    """The part of a decoder's message that a person can use, without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return re.sub(r'^\[\d\d:\d\d:\d\d\] \S+:\d+: ', '', text)

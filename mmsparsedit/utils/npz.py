"""Reading npz and npy files: by key, in blocks of rows, with errors that name the file."""

import math
import os
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from .files import ARCHIVE_ERRORS, first_line

# what numpy raises on damaged headers, besides ValueError
HEADER_ERRORS = (SyntaxError, TypeError, MemoryError, tokenize.TokenError, RecursionError)


class NpzArray:
    """An array inside an npz, read in blocks of rows from the file, never whole.

    50 000 images of 256 x 256 are 9.8 GB; a block of them is what is needed at a time. The CRC of
    the member is compared, whatever part of it is read.

    Raises:
        ValueError: the file is no npz, is damaged, or lacks the key.
    """

    def __init__(self, path: str | os.PathLike, key: str = 'arr_0') -> None:
        self.path, self.key = Path(path), key
        with self._open() as stream:
            self.shape, self.dtype = self._header(stream)

    def __len__(self) -> int:
        return self.shape[0]

    @staticmethod
    def keys(path: str | os.PathLike) -> list[str]:
        """Names of the arrays of an npz."""
        with _open_archive(Path(path)) as archive:
            return _names(archive)

    def read(self) -> np.ndarray:
        """The whole array; for statistics and small things."""
        with self._open() as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            _read_rest(stream)
            return array

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        """The member of the npz; what goes wrong inside becomes one error that names the file."""
        with _open_archive(self.path) as archive:
            names = _names(archive)
            if self.key not in names:
                raise ValueError(
                    f'got {self.path} with the keys {names}, expected {self.key!r}: images go '
                    'there as uint8 (N, H, W, 3)'
                )
            try:
                with archive.open(f'{self.key}.npy') as stream:
                    self._bytes = archive.getinfo(f'{self.key}.npy').file_size
                    yield stream
            except (*ARCHIVE_ERRORS, *HEADER_ERRORS) as error:
                raise _damaged(self.path, error) from error

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
        shape, fortran, dtype = read_header(stream, self._bytes)
        self._fortran = fortran and len(shape) > 1
        return shape, dtype

    def blocks(self, rows: int, limit: int | None = None) -> Iterator[np.ndarray]:
        """Consecutive blocks of at most ``rows`` rows of the first ``limit`` rows."""
        if not self.shape or self._fortran:
            raise ValueError(
                f'got {self.key} of shape {self.shape} in {self.path}, Fortran order '
                f'{self._fortran}, expected rows in C order: save it again'
            )
        total = len(self) if limit is None else min(limit, len(self))
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        with self._open() as stream:
            self._header(stream)
            for start in range(0, total, rows):
                count = min(rows, total - start)
                data = stream.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise ValueError(f'it ends after {start} of {total} rows')
                block = np.frombuffer(data, dtype=self.dtype)
                yield block.reshape(count, *self.shape[1:])
            _read_rest(stream)


def read_npy(path: str | os.PathLike) -> np.ndarray:
    """The array of an npy file, which must be as long as its header says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no npy, a shortened one, one of objects.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'got {path}, expected an npy file: no such file')
    try:
        with open(path, 'rb') as file:
            read_header(file, os.path.getsize(path))
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, *HEADER_ERRORS) as error:
        raise ValueError(
            f'got {path}, expected an npy file: it is damaged or no npy ({first_line(error)})'
        ) from error


def read_header(stream: IO[bytes], num_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type of the array of a stream of so many bytes in all."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f'array format {version} is not known')
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError('it holds pickled objects')
    data = math.prod(shape) * dtype.itemsize  # Python's integers: no overflow
    if min(shape, default=0) < 0 or stream.tell() + data != num_bytes:
        raise ValueError(f'{num_bytes} bytes are no array of shape {shape} and {dtype}')
    return shape, fortran, dtype


def _read_rest(stream: IO[bytes]) -> None:
    """To the end, where the CRC is compared."""
    while stream.read(2**20):
        pass


def _open_archive(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise FileNotFoundError(f'got {path}, expected an npz file: no such file')
    try:
        return zipfile.ZipFile(path)
    except ARCHIVE_ERRORS as error:
        raise _damaged(path, error) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix('.npy') for name in archive.namelist()]


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(
        f'got {path}, expected an npz file: it is damaged or no npz ({first_line(error)}); make or '
        'fetch it again'
    )

"""Reading npz files by key, in blocks of rows, with errors that name the file."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np


class NpzArray:
    """An array inside an npz, read in blocks of rows from the file, never whole.

    50 000 images of 256 x 256 are 9.8 GB; a block of them is what is needed at a time.

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
            return np.lib.format.read_array(stream, allow_pickle=False)

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
                    yield stream
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
                raise _damaged(self.path, error) from error

    def _header(self, stream) -> tuple[tuple[int, ...], np.dtype]:
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


def _open_archive(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise FileNotFoundError(f'got {path}, expected an npz file: no such file')
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix('.npy') for name in archive.namelist()]


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(
        f'got {path}, expected an npz file: it is damaged or no npz ({error}); make or fetch it '
        'again'
    )

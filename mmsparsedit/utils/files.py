"""Files that are whole or not there, and their hash.

The word of this package for a hash of content is *digest*: SHA-256, 64 hexadecimal digits.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """Path of a file beside ``path`` to write; leaving flushes it to the disk and puts it in place.

    A crash leaves the old file or the new one, an error inside the block leaves the old one. No two
    writers meet, on whatever machines. A killed process leaves at most a file
    ``.{name}.{uuid}.part``. Folders that are missing are made.

    Args:
        durable: False leaves the flushing to the system: whole after a killed process, not after a
            power cut; for many small files that can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.part')
    try:
        yield beside
        if durable:
            _flush(beside)
        os.replace(beside, path)
        if durable:
            _flush(path.parent)  # the new name too
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, read in pieces, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()

"""Files that are whole or not there, hashes of inputs, and a cache keyed by them."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .npz import NpzArray


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], None]) -> None:
    """Let ``write`` fill a file beside ``path`` and put it in place when it is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        with open(beside, 'wb') as file:
            write(file)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """``$MMSPARSEDIT_CACHE``, else ``mmsparsedit`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if 'MMSPARSEDIT_CACHE' in os.environ:
        return Path(os.environ['MMSPARSEDIT_CACHE'])
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'mmsparsedit'


def cached(folder: str | os.PathLike | None, inputs: dict, make: Callable[[], dict]) -> dict:
    """Arrays that ``make`` gives, kept in ``folder`` under a hash of ``inputs`` (JSON values)."""
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    path = Path(folder or cache_folder()) / f'{key}.npz'
    if path.is_file():
        return {name: NpzArray(path, name).read() for name in NpzArray.keys(path)}
    arrays = make()
    write_atomically(path, lambda file: np.savez(file, **arrays))
    return arrays


def hash_of_source(path: str | os.PathLike, files: list[Path] | None = None) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder."""
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in files if files is not None else sorted(p for p in path.rglob('*') if p.is_file()):
        digest.update(f'{file.relative_to(path).as_posix()} {sha256_of(file)}\n'.encode())
    return digest.hexdigest()

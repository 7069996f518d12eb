"""Arrays that are dear to compute, kept under a digest of their inputs."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmsparsedit.utils.files import atomic_write, sha256_of
from mmsparsedit.utils.npz import NpzArray


def cache_folder() -> Path:
    """``$MMSPARSEDIT_CACHE``, else ``mmsparsedit`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if 'MMSPARSEDIT_CACHE' in os.environ:
        return Path(os.environ['MMSPARSEDIT_CACHE'])
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'mmsparsedit'


def cached(folder: str | os.PathLike | None, inputs: dict, make: Callable[[], dict]) -> dict:
    """Arrays that ``make`` gives, kept in ``folder`` under a digest of ``inputs`` (JSON values)."""
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    path = Path(folder or cache_folder()) / f'{key}.npz'
    if path.is_file():
        return {name: NpzArray(path, name).read() for name in NpzArray.keys(path)}
    arrays = make()
    save_npz(path, **arrays)
    return arrays


def save_npz(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Write an npz, whole or not at all."""
    with atomic_write(path) as beside, open(beside, 'wb') as file:
        np.savez(file, **arrays)


def digest_of(path: str | os.PathLike, files: list[Path] | None = None) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder, by default all.

    A URL is its own digest.
    """
    if '://' in str(path):
        return str(path)
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in files if files is not None else sorted(p for p in path.rglob('*') if p.is_file()):
        digest.update(f'{file.relative_to(path).as_posix()} {sha256_of(file)}\n'.encode())
    return digest.hexdigest()

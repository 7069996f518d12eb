"""Files that are whole or not there, their hash, and what is checked before one is believed.

The word of this package for a hash of content is *digest*: SHA-256, 64 hexadecimal digits.

A file that cannot be used raises ``ValueError`` or ``OSError``, in one line that names it.
"""

import errno
import hashlib
import json
import os
import re
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: nothing tells a living writer from a killed one
    fcntl = None

# no room: on the disk, in the user's share of it, in a file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PART = re.compile(r'\..+\.[0-9a-f]{32}\.part')
# what Python's zip reader raises on damaged archives
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, IndexError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


@contextmanager
def atomic_write(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """Path of a file beside ``path`` to write; leaving flushes it to the disk and puts it in place.

    A crash leaves the old file or the new one, an error inside the block leaves the old one. No two
    writers meet, on whatever machines. A killed process leaves at most a file
    ``.{name}.{uuid}.part``, which ``clear_parts`` removes. Folders that are missing are made.
    A device or a pipe is written to as it is.

    Args:
        durable: False leaves the flushing to the system: whole after a killed process, not after a
            power cut; for many small files that can be made again.

    Raises:
        OSError: a full disk, with the name of the file; the block wrote nothing.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        wrong = errno.ENOTDIR
        raise NotADirectoryError(wrong, os.strerror(wrong), str(path.parent)) from error
    try:
        if path.exists() and is_special(path):
            yield path
            return
        with _part(path) as beside:
            yield beside
            if not beside.stat().st_size:
                raise OSError(f'{path}: nothing was written')
            if durable:
                _flush(beside)
            os.replace(beside, path)
        if durable:
            _flush(path.parent)  # the new name too
    except Exception as error:
        if full := full_disk(error):
            raise OSError(full.errno, os.strerror(full.errno), str(path)) from error
        raise


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, locked as long as its writer lives; afterwards it is gone."""
    beside = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.part')
    try:
        with open(beside, 'xb') as held:
            _lock(held)
            yield beside
    finally:
        beside.unlink(missing_ok=True)


def check_place(path: str | os.PathLike) -> None:
    """See that a file can be written at ``path``, before the work is done that it is to hold.

    Nothing is made. A full disk shows in writing only.

    Raises:
        OSError: a folder is there, or what should be the folder is a file or not to be written to.
    """
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    for wrong, place, number in (
        (path.is_dir(), path, errno.EISDIR),
        (not folder.is_dir(), folder, errno.ENOTDIR),
        (not os.access(path if path.exists() else folder, os.W_OK), path, errno.EACCES),
    ):
        if wrong:
            raise OSError(number, os.strerror(number), str(place))


def write_text(path: str | os.PathLike, text: str, durable: bool = True) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with atomic_write(path, durable) as beside:
        beside.write_text(text, encoding='utf-8')


def full_disk(error: BaseException | None) -> OSError | None:
    """The error of the system behind one, if that is a lack of room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def clear_parts(folder: str | os.PathLike) -> list[Path]:
    """Remove what killed writers left in a folder; others may write to it meanwhile."""
    left = []
    for path in Path(folder).glob('.*.part'):
        if PART.fullmatch(path.name) and _abandoned(path):
            path.unlink(missing_ok=True)
            left.append(path)
    return left


def _abandoned(part: Path) -> bool:
    try:
        with open(part, 'r+b') as file:
            return _lock(file)
    except OSError:  # gone meanwhile, or another user's
        return False


def _lock(file) -> bool:
    """Lock a file until it is closed; False where another holds it, or there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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


def check_digest(path: str | os.PathLike, expected: str, advice: str) -> str:
    """The digest of a file, which must be the expected one.

    Raises:
        ValueError: it is another; with ``advice``.
    """
    digest = sha256_of(path)
    if digest != expected.lower():
        raise ValueError(f'{path}: got SHA-256 {digest}, expected {expected}. {advice}')
    return digest


def verify_archive(path: str | os.PathLike) -> None:
    """Read every member of a zip archive and compare its CRC; any other file passes.

    PyTorch's checkpoints and TorchScript files are zip archives, and PyTorch does not look at the
    CRCs that it writes.

    Raises:
        ValueError: a member is damaged, or the directory of the archive.
    """
    if not zipfile.is_zipfile(path):
        return
    name = 'its directory'
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                with archive.open(member) as stream:
                    while stream.read(2**20):
                        pass
    except ARCHIVE_ERRORS as error:
        raise ValueError(
            f'{path} is damaged: the checksum or the header of {name} is wrong '
            f'({first_line(error)}). Copy or download it again.'
        ) from error


def read_json(path: str | os.PathLike, kind: type = dict, advice: str = 'Write it again.') -> Any:
    """The content of a JSON file: a dict, or what ``kind`` says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, no JSON, or another kind of value.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON file ({first_line(error)}). {advice}') from error
    if not isinstance(content, kind):
        raise ValueError(
            f'{path}: got a JSON {type(content).__name__}, expected a {kind.__name__}. {advice}'
        )
    return content


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path is there and neither file nor folder: opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: nothing is there.
    """
    mode = os.stat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

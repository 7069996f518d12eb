"""The checkpoints of a work dir: which is the newest sound one, the pointer to it, the lock.

A checkpoint is written beside its name and renamed (``utils.files.atomic_write``), so a killed run
leaves whole files only; disks and copies may still damage them, and an earlier version of this
package or MMEngine may have saved weights that are not finite. What is resumed from is therefore
looked at first.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmsparsedit.models.checkpoints import read_checkpoint
from mmsparsedit.utils.files import write_text

POINTER = 'last_checkpoint'  # MMEngine's name; a hint for other tools, nothing here relies on it
LOCK = '.lock'
NUMBERED = re.compile(r'(iter|epoch)_(\d+)\.pth')
# what a run has to find in a checkpoint to go on, and those whose numbers have to be finite
RUNNER_KEYS = frozenset({'meta', 'state_dict', 'message_hub', 'optimizer'})
WEIGHTS = ('state_dict', 'ema_state_dict', 'optimizer')
# of ``meta``: the others are neither read nor kept (MMEngine's resume runs 'config' as a program)
META_KEYS = frozenset(
    'epoch iter saved_at cfg seed experiment_name mmengine_version dataset_meta'.split()
)


class Found(NamedTuple):
    """The checkpoint to resume from; None, and what was passed over on the way."""

    path: Path | None
    passed_over: tuple[str, ...]


def find_sound_checkpoint(folder: str | os.PathLike) -> Found:
    """The newest checkpoint of a work dir that a run can go on from.

    The newest is the one saved last, whatever the pointer says and wherever the folder was moved.
    """
    passed_over = []
    for path in _newest_first(Path(folder)):
        try:
            check_resumable(path, read_checkpoint(path))
        except (ValueError, OSError) as error:
            passed_over.append(str(error))
        else:
            return Found(path, tuple(passed_over))
    return Found(None, tuple(passed_over))


def _newest_first(folder: Path) -> list[Path]:
    paths = [p for p in folder.glob('*.pth') if NUMBERED.fullmatch(p.name) and p.is_file()]
    return sorted(paths, key=_age, reverse=True)


def _age(path: Path) -> tuple[float, int]:
    """When a checkpoint was saved, as it says itself; unreadable ones by their name, first."""
    number = int(NUMBERED.fullmatch(path.name)[2])
    try:
        meta = torch.load(path, map_location='cpu', weights_only=True, mmap=True)['meta']
        return float(meta.get('saved_at', 0)), number
    except Exception:  # a damaged file raises anything; it is named when its turn comes
        return float('inf'), number


def check_resumable(path: str | os.PathLike, checkpoint: Any, averaged: bool = False) -> None:
    """Raise ValueError unless a run can go on from ``checkpoint``.

    Args:
        averaged: the run keeps averages of its weights, so they have to be there.
    """
    content = checkpoint if isinstance(checkpoint, Mapping) else {}
    needed = RUNNER_KEYS | ({'ema_state_dict'} if averaged else set())
    absent = sorted(
        key for key in needed if not isinstance(content.get(key), Mapping) or not content[key]
    )
    if absent:
        raise ValueError(
            f'{path} cannot be resumed from: it lacks {absent}. To start from its weights give it '
            'as --cfg-options load_from=... without --resume.'
        )
    averages = content.get('ema_state_dict') or {}
    alone = [key for key in content['state_dict'] if averages and f'module.{key}' not in averages]
    if alone:
        raise ValueError(
            f'{path} cannot be resumed from: its ema_state_dict lacks the average of {alone[:3]}. '
            'Name an earlier checkpoint, --resume PATH.'
        )
    for name in ('epoch', 'iter'):
        value = content['meta'].get(name)
        if type(value) is not int or value < 0:
            raise ValueError(
                f'{path} cannot be resumed from: its meta says {name}={str(value)[:40]!r}, '
                'expected a whole number from 0.'
            )
    for part in WEIGHTS:
        wrong = next((key for key, value in _tensors(content.get(part)) if not finite(value)), None)
        if wrong is not None:
            raise ValueError(
                f'{path} cannot be resumed from: {part}{wrong} holds NaN or infinity. Name an '
                'earlier checkpoint, --resume PATH.'
            )


def _tensors(value: Any, where: str = '') -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield where, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _tensors(inner, f'{where}[{key!r}]')


def finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def known_meta(meta: Mapping) -> dict:
    """What of a checkpoint's ``meta`` is read."""
    return {key: value for key, value in meta.items() if key in META_KEYS}


def point_to(folder: str | os.PathLike, checkpoint: str | os.PathLike) -> None:
    """Let the pointer of a work dir name a checkpoint, in one step."""
    write_text(Path(folder) / POINTER, str(checkpoint))


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a work dir against other trainings; a killed process lets go of it by itself.

    Raises:
        ValueError: another training holds it; names its process.
    """
    path = Path(folder) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f'work dir {folder} is in use by another training ({file.read().strip()}). Wait '
                'for it or stop it, or name another folder with --work-dir.'
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            # a file system without locks: nothing to hold
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield

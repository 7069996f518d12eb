"""Shards compared with the SHA-256 that their index gives, at once or while they are read."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import get_worker_info

from mmsparsedit.utils.files import sha256_of

UNKNOWN, SOUND, DAMAGED = 0, 1, 2
WHEN = ('start', 'background', None)


class ShardCheck:
    """Reads every shard once and compares it with its index.

    In the background each process that reads items checks a share of the shards in a thread of its
    own: of the ranks and, within them, of the workers of a data loader. What is known is shared by
    the workers of a rank and outlasts them.

    Args:
        paths: of the shards.
        shards: their entries in the index.
        when: ``'start'``, now; ``'background'``, from the first item read on; None, never.

    Raises:
        ValueError: another ``when``; at the start, a shard that differs, named.
    """

    def __init__(self, paths: Sequence[str], shards: Sequence[Mapping], when: str | None) -> None:
        if when not in WHEN:
            raise ValueError(f'got verify={when!r}, expected one of {WHEN}')
        self.paths = list(paths)
        self.digests = [shard['sha256'] for shard in shards]
        self.when = when
        self._thread: threading.Thread | None = None
        self._states = torch.zeros(len(self.paths), dtype=torch.int8)
        if when == 'background':
            self._states.share_memory_()
        if when == 'start':
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(self._check, range(len(self.paths))))
            self._refuse()

    def poll(self) -> None:
        """Begin to check in the background, if that is asked for; raise what has been found."""
        if self.when != 'background':
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._check_share, daemon=True)
            self._thread.start()
        if (self._states == DAMAGED).any():
            self._refuse()

    def wait(self) -> None:
        """Until this process has checked its share."""
        self.poll()
        if self._thread is not None:
            self._thread.join()
            self._refuse()

    def _check_share(self) -> None:
        rank, world = get_dist_info()
        worker = get_worker_info()
        first, step = rank, world
        if worker is not None:
            first, step = rank + worker.id * world, world * worker.num_workers
        for number in range(first, len(self.paths), step):
            if self._states[number] == UNKNOWN:
                self._check(number)

    def _check(self, number: int) -> None:
        try:
            sound = sha256_of(self.paths[number]) == self.digests[number]
        except OSError:
            sound = False
        self._states[number] = SOUND if sound else DAMAGED

    def _refuse(self) -> None:
        damaged = (self._states == DAMAGED).nonzero().flatten().tolist()
        if damaged:
            raise ValueError(
                f'{self.paths[damaged[0]]} is damaged: its SHA-256 is not the one in the index '
                f'({len(damaged)} of {len(self.paths)} shards so far). Copy it again, or delete it '
                'and the index and extract again: what is sound is kept.'
            )

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_thread': None}

    def __deepcopy__(self, memo: dict) -> ShardCheck:
        return self

"""Items that cannot be read: the error, and a mixin that replaces, logs and counts them."""

from __future__ import annotations

import logging

import torch
from mmengine.logging import print_log

DAMAGED = 1  # what is known of an item, one byte; 0 nothing, above 0 it is skipped


class DamagedError(ValueError):
    """An item that cannot be read, which another one can stand in for.

    Attributes:
        path: the file or folder.
        reason: one line.
    """

    what = 'cannot be read'

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f'{self.path} {self.what}: {self.reason}'


class SkipDamaged:
    """Mixin of data sets that replace an item that cannot be read by the next one that can.

    The data set gives ``data_root``, ``len`` and ``load(index)``, which raises ``DamagedError``,
    and calls ``limit_damaged`` and, once its length is known, ``watch``. Replacing is the same on
    every run. Skipped items are logged once each and counted over all workers of a data loader;
    when more than a share of all items turn out damaged the run ends with an error.
    """

    items, damaged = 'items', 'unreadable'  # how texts call them
    share_name = 'max_skipped_share'  # of the argument that users set
    advice = 'Check the files'

    def limit_damaged(self, max_share: float) -> None:
        """Set the largest share of damaged items, in [0, 1]."""
        if not 0 <= max_share <= 1:
            raise ValueError(f'got {self.share_name}={max_share}, expected it in [0, 1]')
        self.max_share = max_share

    def watch(self) -> None:
        """Begin to count, before a data loader copies the data set into its workers."""
        self._states = torch.zeros(len(self), dtype=torch.int8).share_memory_()

    def __getitem__(self, index: int) -> dict:
        """An item, or the next one that can be read.

        Raises:
            ValueError: none can be read, or too large a share is damaged.
        """
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f'{self.data_root} has {length} {self.items}, got index {index}')
        for step in range(length):
            position = (index + step) % length
            if self._states[position] > 0:
                continue
            try:
                return self.load(position)
            except DamagedError as error:
                self.skip(position, error)
        raise ValueError(
            f'not one of the {self.items} of {self.data_root} can serve: {self.report()}. '
            f'{self.advice}.'
        )

    def skip(self, index: int, error: DamagedError, state: int = DAMAGED) -> None:
        """Log and count an item; raise ValueError if they are too many."""
        if self._states[index] <= 0:
            self._states[index] = state
            print_log(f'{error}; skipped', logger='current', level=logging.WARNING)
        if self.num_damaged > self.max_share * len(self):
            raise ValueError(
                f'{self.data_root}: got {self.num_damaged} {self.damaged} {self.items} of '
                f'{len(self)}, expected at most {self.max_share:.2%} ({self.share_name}). The last '
                f'is {error}. Check the files and the disk, remove the {self.damaged} ones, or '
                f'raise {self.share_name}.'
            )

    def positions(self, state: int = DAMAGED) -> list[int]:
        """Positions of the items of this state, found by this process and its workers."""
        return (self._states == state).nonzero().flatten().tolist()

    @property
    def num_damaged(self) -> int:
        """Damaged items found so far, by this process and the workers that share the data set."""
        return int((self._states == DAMAGED).sum())

    def report(self) -> str:
        """One line: how many items are damaged."""
        return f'{len(self)} {self.items}: {self.num_damaged} {self.damaged}'

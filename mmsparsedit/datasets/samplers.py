"""The order in which training sees its data."""

from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmsparsedit.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class SeekableSampler(Sampler):
    """Endless epochs, each a permutation of its own, readable from any position.

    The stream of one process and of several is the same: rank r takes places r, r + world, ... of
    it. The order is a function of (seed, epoch) only; ``seek`` costs nothing but one permutation.

    Args:
        dataset: anything with a length.
        shuffle: permute each epoch.
        seed: of the order; by default one that all processes agree on.
    """

    def __init__(self, dataset, shuffle: bool = True, seed: int | None = None) -> None:
        if len(dataset) < 1:
            raise ValueError('the training data set is empty: nothing can be drawn from it.')
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else int(seed)
        self.rank, self.world = get_dist_info()
        self.position = 0

    def seek(self, position: int) -> None:
        """Begin the next iteration behind the first ``position`` samples of this process."""
        self.position = int(position)

    def __iter__(self) -> Iterator[int]:
        place = self.position * self.world + self.rank
        epoch, order = -1, None
        while True:
            if place // self.size != epoch:
                epoch = place // self.size
                order = self._order(epoch)
            yield int(order[place % self.size])
            place += self.world

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.size)
        return np.random.default_rng((self.seed, epoch)).permutation(self.size)

    def __len__(self) -> int:
        """Samples of this process in one epoch, rounded up; the stream itself has no end."""
        return -(-self.size // self.world)

"""Training from stored latents: shards of this package, and fast-DiT's one file per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS

from .latent_format import (
    DTYPES,
    HEADER_DTYPES,
    ShardFiles,
    ShardLayout,
    read_column,
    read_index,
    read_layout,
    tensor_names,
)
from .shard_check import ShardCheck


def check_latent_shape(got: Sequence[int], expected: Sequence[int] | None, where: str) -> None:
    """Raise ValueError if latents are not of the shape (C, h, w) that the config expects."""
    if expected is not None and tuple(got) != tuple(expected):
        raise ValueError(
            f'{where}: got latents of shape {tuple(got)}, expected {tuple(expected)}. The image '
            "size of the extraction is 8 x the latent size: name the folder made for this config's "
            'size, or change latent_shape together with input_size and in_channels of the network.'
        )


def check_labels(labels: np.ndarray, num_classes: int | None, where: str) -> None:
    """Raise ValueError if a label lies outside [0, num_classes)."""
    if len(labels) == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        raise ValueError(
            f'{where}: got labels from {low} to {high}, expected 0 to '
            f'{"..." if num_classes is None else num_classes - 1}. Set num_classes (of the data '
            f'set and of the network) to at least {high + 1}, or name other data.'
        )


@DATASETS.register_module()
class LatentDataset(Dataset):
    """Latents of a folder that ``extract_latents.py`` wrote (layout: ``docs/data.md``).

    An item is ``dict(inputs=..., label=int)``. ``inputs`` is float32: (2C, h, w), the mean and the
    log-variance of the autoencoder's posterior, for moments; (C, h, w) for stored samples. Drawing
    ``mean + exp(logvar / 2) * noise`` and multiplying by ``metainfo['scale_factor']`` is left to
    the model, so every epoch samples afresh.

    With flipped copies the length is 2n: item i is sample i // 2, flipped for odd i. An epoch then
    shows every image once in both orientations; DiT flips at random, once per image and epoch.

    Reads go through ``preadv`` into one buffer per batch rather than through a memory map: the
    memory of a process stays constant, a lost disk raises instead of killing the process, and
    4 x 32 x 32 moments are read at about 10^5 per second from the page cache. Safe after fork,
    picklable.

    Args:
        data_root: the folder.
        latent_shape: (C, h, w) that the config expects, checked at once; None takes any.
        num_classes: labels must lie in [0, num_classes), checked at once; None takes any.
        flip: None uses the flipped copies where the folder has them, True demands them, False
            leaves them out.
        scale_factor: that the model multiplies by, checked at once; None takes any.
        verify: when shards are compared with their SHA-256: ``'background'``, while they are read;
            ``'start'``, before the first item; None, never (``ShardCheck``).

    Raises:
        FileNotFoundError: no such folder, no index, a missing shard.
        ValueError: wrong latent shape or scale factor, label out of range, damaged index or shard;
            at reading, a latent that is not finite, or a shard that turned out damaged.
    """

    def __init__(
        self,
        data_root: str | Path,
        latent_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        flip: bool | None = None,
        scale_factor: float | None = None,
        verify: str | None = 'background',
    ) -> None:
        self.data_root = str(data_root)
        index = read_index(data_root)
        check_latent_shape(index['latent_shape'], latent_shape, self.data_root)
        if scale_factor is not None and index['scale_factor'] != scale_factor:
            raise ValueError(
                f'{self.data_root}: got latents of scale factor {index["scale_factor"]}, expected '
                f'{scale_factor}. They come from another autoencoder: set scale_factor of the data '
                'set and of the model to theirs, and name their autoencoder.'
            )
        if flip and not index['flipped']:
            raise ValueError(
                f'{self.data_root} holds no flipped copies, got flip=True. Extract again without '
                '--no-flip, or set flip=None.'
            )
        self.latent_shape = tuple(index['latent_shape'])
        self.dtype = DTYPES[index['dtype']]
        self.kind = index['kind']
        self.flipped = index['flipped'] if flip is None else bool(flip)
        self.metainfo = {
            'latent_shape': self.latent_shape,
            'scale_factor': float(index['scale_factor']),
            'kind': self.kind,
            'classes': tuple(index['classes']),
        }
        # an item is these tensors, one under the other
        self._names = [tensor_names(self.kind, flip) for flip in (False, True)]
        self._part_bytes = int(np.prod(self.latent_shape)) * self.dtype.itemsize
        self._paths: list[str] = []
        self._offsets: list[dict[str, int]] = []
        labels, counts = [], []
        for entry in index['shards']:
            path = os.path.join(self.data_root, entry['file'])
            layout = read_layout(path)
            self._check_layout(path, layout, entry['num_samples'], index['dtype'])
            self._paths.append(path)
            self._offsets.append(layout.offsets)
            counts.append(entry['num_samples'])
            labels.append(read_column(path, layout, 'label'))
        self.check = ShardCheck(self._paths, index['shards'], verify)
        self.labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        # number of the first sample of each shard, and behind the last
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        if len(self.labels) == 0:
            raise ValueError(
                f'{self.data_root} holds no samples: every image was corrupt or the source was '
                'empty. Its index.json names the corrupt images; extract again from good ones.'
            )
        check_labels(self.labels, num_classes, self.data_root)
        self._files = ShardFiles(self._paths)

    def _check_layout(self, path: str, layout: ShardLayout, count: int, dtype: str) -> None:
        expected = {'label': ((count,), 'I64')}
        for flip in range(1 + self.flipped):
            for name in self._names[flip]:
                expected[name] = ((count, *self.latent_shape), HEADER_DTYPES[dtype])
        for name, (shape, kind) in expected.items():
            got = (layout.shapes.get(name), layout.dtypes.get(name))
            if got != (shape, kind):
                raise ValueError(
                    f'{path}: tensor {name!r} is {got[0]} {got[1]}, expected {shape} {kind} by the '
                    'index. The folder mixes two extractions: extract again into an empty folder.'
                )

    def __len__(self) -> int:
        return len(self.labels) * (1 + self.flipped)

    def __getitem__(self, index: int) -> dict:
        """One item: ``inputs`` (2C or C, h, w) float32, ``label`` int."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """Items of a batch, their ``inputs`` views of one buffer (the data loader calls this)."""
        self.check.poll()
        order = np.asarray(indices, dtype=np.int64)
        if len(order) and not (-len(self) <= order.min() and order.max() < len(self)):
            raise IndexError(f'{self.data_root} has {len(self)} items, got indices {indices}')
        order = np.where(order < 0, order + len(self), order)
        samples, flips = (order // 2, order % 2) if self.flipped else (order, np.zeros_like(order))
        shards = np.searchsorted(self._starts, samples, side='right') - 1
        rows = samples - self._starts[shards]
        labels = self.labels[samples].tolist()

        channels, height, width = self.latent_shape
        parts = len(self._names[0])
        inputs = torch.empty(len(order), parts * channels, height, width, dtype=self.dtype)
        buffer = memoryview(inputs.view(torch.uint8).numpy()).cast('B')
        size, position = self._part_bytes, 0
        for shard, row, flip in zip(shards.tolist(), rows.tolist(), flips.tolist(), strict=True):
            file, offsets = self._files[shard], self._offsets[shard]
            for name in self._names[flip]:
                got = os.preadv(
                    file, [buffer[position : position + size]], offsets[name] + row * size
                )
                if got != size:
                    raise OSError(
                        f'{self._paths[shard]}: read {got} of {size} bytes of sample {row}; the '
                        'file was shortened while it was read. Check it with verify_latents.py.'
                    )
                position += size
        if not (sound := inputs.isfinite().flatten(1).all(1)).all():
            first = int((~sound).nonzero()[0])
            raise ValueError(
                f'{self._paths[shards[first]]}: got latent {rows[first]} with NaN or infinity, '
                'expected finite numbers. Check the folder with verify_latents.py, and extract '
                'the shard again.'
            )
        items = zip(inputs.float().unbind(0), labels, strict=True)
        return [{'inputs': tensor, 'label': label} for tensor, label in items]

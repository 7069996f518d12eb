"""Latents extracted once, by any number of processes, restartable (layout: ``docs/data.md``).

The batches of a shard are cut the same for any number of processes, since convolutions give other
last bits at another batch size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from mmsparsedit.version import __version__

from .latent_format import DTYPES, read_layout, write_index
from .shard_writer import (
    check_sizes,
    claim_folder,
    index_entries,
    read_records,
    source_of,
    write_shards,
)


def make_settings(
    dataset: Any,
    autoencoder: Any,
    *,
    pipeline: Sequence,
    name: str,
    dtype: str = 'bf16',
    flipped: bool = True,
    shard_size: int = 4096,
    batch_size: int = 32,
) -> dict:
    """Everything that decides the bytes of the latents, and their provenance; plain containers.

    Args:
        dataset: as :class:`~mmsparsedit.datasets.ImageNet`: ``len``, ``read``, ``digest``,
            ``metainfo``.
        autoencoder: as :class:`~mmsparsedit.models.autoencoders.DiffusersVAE`: ``encode``,
            ``digest``, ``scale_factor``, ``downsampling``.
        pipeline: configs of the transforms, without random ones.
        name: of the autoencoder, to be read by people.
        shard_size: images of the source per shard.
        batch_size: images encoded at once.

    Raises:
        ValueError: unknown dtype, sizes below 1, a random transform.
    """
    check_sizes(dtype, shard_size=shard_size, batch_size=batch_size)
    for transform in pipeline:
        if str(transform.get('type', '')).split('.')[-1].startswith('Random'):
            raise ValueError(
                f'got {transform["type"]} in the pipeline of an extraction, expected no random '
                'transform: an image is stored once. Remove it; flipped copies are made anyway.'
            )
    return {
        'source': source_of(dataset),
        'classes': list(dataset.metainfo['classes']),
        'pipeline': json.loads(json.dumps(pipeline, default=str)),
        'autoencoder': {
            'name': name,
            'weights_sha256': autoencoder.digest(),
            'downsampling': autoencoder.downsampling,
        },
        'compute_dtype': str(getattr(autoencoder, 'dtype', '')).removeprefix('torch.'),
        'scale_factor': autoencoder.scale_factor,
        'dtype': dtype,
        'flipped': flipped,
        'shard_size': shard_size,
        'batch_size': batch_size,
    }


class _Reader(Dataset):
    """Items of a data set with corrupt images marked instead of replaced."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset.read(index)


def _collate(items: list[dict]) -> tuple[torch.Tensor | None, list[int], list[dict]]:
    """Images (b, 3, H, W) of the good items or None, their labels, the corrupt ones."""
    good = [item for item in items if 'corrupt' not in item]
    corrupt = [item['corrupt'] for item in items if 'corrupt' in item]
    images = torch.stack([item['inputs'] for item in good]) if good else None
    return images, [item['label'] for item in good], corrupt


def _encode(autoencoder: Any, images: torch.Tensor, settings: dict) -> dict[str, torch.Tensor]:
    """Moments of a batch, and of the flipped batch, as stored."""
    tensors = {}
    for ending, batch in (('', images), ('_flip', images.flip(-1))):
        if ending and not settings['flipped']:
            continue
        mean, logvar = autoencoder.encode(batch)
        if not (mean.isfinite().all() and logvar.isfinite().all()):
            raise ValueError(
                'the autoencoder gave latents that are not finite. Its computation overflowed: '
                "set its dtype to 'float32' or 'bfloat16'."
            )
        dtype = DTYPES[settings['dtype']]
        tensors[f'mean{ending}'] = mean.to('cpu', dtype)
        tensors[f'logvar{ending}'] = logvar.to('cpu', dtype)
    return tensors


def extract(
    dataset: Any,
    autoencoder: Any,
    folder: str | Path,
    settings: dict,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = 'cpu',
    num_workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Make the shards of one rank that are missing; the index too, if they were the last.

    Args:
        dataset, autoencoder, settings: as given to and made by :func:`make_settings`.
        num_workers: processes that read images.
        progress: called after every batch with images done and to do, of this rank in this run.

    Returns:
        Whether the folder is complete; False while other ranks are at work.

    Raises:
        ValueError: other settings in the folder, too many corrupt images, latents not finite.
    """
    folder, step = Path(folder), settings['batch_size']
    claim_folder(folder, settings)

    def make(spans: list[range]) -> Iterator[tuple[dict[str, torch.Tensor], dict]]:
        batches = [[list(span[i : i + step]) for i in range(0, len(span), step)] for span in spans]
        loader = DataLoader(
            _Reader(dataset),
            batch_sampler=sum(batches, []),
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=torch.device(device).type == 'cuda',
        )
        total, done = sum(map(len, spans)), 0
        arrived = iter(loader)
        for of_shard in batches:
            parts, labels, corrupt = [], [], []
            for batch in of_shard:
                images, batch_labels, batch_corrupt = next(arrived)
                if images is not None:
                    images = images.to(device, non_blocking=True)
                    parts.append(_encode(autoencoder, images, settings))
                labels += batch_labels
                corrupt += batch_corrupt
                done += len(batch)
                progress(done, total)
            tensors = {'label': torch.tensor(labels, dtype=torch.int64)}
            for name in parts[0] if parts else ():
                tensors[name] = torch.cat([part[name] for part in parts])
            yield tensors, {'corrupt': corrupt}

    write_shards(folder, settings, make, rank, world_size)
    return finish(folder, settings, getattr(dataset, 'max_share', 1.0))


def finish(folder: str | Path, settings: dict, max_corrupt_share: float = 1.0) -> bool:
    """Write the index once every shard is there; False while some are missing.

    Any rank may do it, even two at once: they write the same bytes.

    Raises:
        ValueError: too large a share of all images is corrupt, or all are.
    """
    folder = Path(folder)
    records = read_records(folder, settings)
    if records is None:
        return False
    count = settings['source']['num_images']
    corrupt = [entry for record in records for entry in record['corrupt']]
    if len(corrupt) > max_corrupt_share * count or len(corrupt) == count:
        raise ValueError(
            f'got {len(corrupt)} corrupt images of {count}, expected at most '
            f'{max_corrupt_share:.2%} (max_corrupt_share). The first is {corrupt[0]["path"]}: '
            f'{corrupt[0]["reason"]}. The records in {folder} name all. Mend or remove them, or '
            'raise max_corrupt_share and repeat the command: finished shards are kept.'
        )
    shards = index_entries(records)
    first = next(shard['file'] for shard in shards if shard['num_samples'])
    shape = read_layout(folder / first).shapes['mean'][1:]
    made_by = ('source', 'autoencoder', 'compute_dtype', 'pipeline', 'batch_size', 'shard_size')
    write_index(
        folder,
        # a shard whose images are all corrupt holds nothing to read
        shards=[shard for shard in shards if shard['num_samples']],
        latent_shape=shape,
        dtype=settings['dtype'],
        kind='moments',
        flipped=settings['flipped'],
        scale_factor=settings['scale_factor'],
        classes=settings['classes'],
        provenance={
            'software': {'mmsparsedit': __version__, 'torch': torch.__version__},
            'image_size': [side * settings['autoencoder']['downsampling'] for side in shape[1:]],
            **{key: settings[key] for key in made_by},
            'corrupt': corrupt,
        },
    )
    for leftover in folder.glob('.shard-*.part'):
        leftover.unlink(missing_ok=True)
    return True

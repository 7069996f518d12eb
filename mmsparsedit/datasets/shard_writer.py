"""Shards made once, by any number of processes, restartable: what both extractors share.

The shard is the unit of work: shard k holds the items ``[k * shard_size, (k + 1) * shard_size)`` of
the source and belongs to rank ``k % world_size``. A finished shard is one whose record
(``shard-00000.json``) exists; whoever finishes the last one writes the index. Processes never talk
to each other, so nodes may come, go and be restarted in other numbers.

``settings`` are plain containers that decide every byte: ``extraction.json`` holds them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mmsparsedit.utils.files import clear_parts, read_json

from .latent_format import (
    DTYPES,
    INDEX_NAME,
    check_shards,
    dump_json,
    read_layout,
    save_shard,
    shard_name,
    write_json,
)

SETTINGS_NAME = 'extraction.json'


def check_sizes(dtype: str, **sizes: int) -> None:
    """Refuse an unknown dtype, and sizes below 1."""
    if dtype not in DTYPES:
        raise ValueError(f'got dtype={dtype!r}, expected one of {list(DTYPES)}')
    if min(sizes.values()) < 1:
        got = ', '.join(f'{name}={size}' for name, size in sizes.items())
        raise ValueError(f'got {got}, expected at least 1')


def source_of(dataset: Any) -> dict:
    """What settings say of the source."""
    return {'num_images': len(dataset), 'digest': dataset.digest()}


def settings_digest(settings: dict) -> str:
    """SHA-256 of the settings."""
    return hashlib.sha256(dump_json(settings)).hexdigest()


def claim_folder(folder: Path, settings: dict) -> None:
    """Make the folder of this extraction, or check that it is; what killed ones left is removed.

    Raises:
        ValueError: the folder holds an extraction with other settings; the text names them.
    """
    path = folder / SETTINGS_NAME
    clear_parts(folder)
    # looked at first: another rank writes the settings before its first shard
    occupied = (folder / INDEX_NAME).exists() or any(folder.glob('shard-*'))
    if path.is_file():
        found = read_json(path, advice='Write to another folder.')
        keys = [key for key in {**found, **settings} if found.get(key) != settings.get(key)]
        if keys:
            got = ', '.join(f'{key} {_short(settings.get(key))}' for key in keys)
            expected = ', '.join(f'{key} {_short(found.get(key))}' for key in keys)
            raise ValueError(
                f'{folder} holds an extraction with other settings. Got {got}; expected {expected}.'
                ' Repeat the earlier command, or write to another folder.'
            )
    elif occupied:
        raise ValueError(
            f'{folder} holds shards but no {SETTINGS_NAME}, so they are not of this command. '
            'Write to another folder.'
        )
    else:
        write_json(path, settings)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f'{text[:200]}...'


def _record_path(folder: Path, number: int) -> Path:
    return folder / f'shard-{number:05d}.json'


def read_record(folder: Path, number: int, settings: dict) -> dict | None:
    """The record of a finished shard; None if the shard is still to be made.

    Raises:
        ValueError: the shard was made with other settings.
    """
    path = _record_path(folder, number)
    if not path.is_file() or not (folder / shard_name(number)).is_file():
        return None
    record = read_json(path, advice='Delete it and extract again.')
    check_shards(path, record)
    if record.get('settings') != settings_digest(settings):
        raise ValueError(
            f'{path} was made with other settings: got {settings_digest(settings)}, expected '
            f'{record.get("settings")}. Write to another folder.'
        )
    read_layout(folder / shard_name(number))
    return record


def read_records(folder: Path, settings: dict) -> list[dict] | None:
    """The records of all shards; None while some are missing."""
    records = []
    for number in range(math.ceil(settings['source']['num_images'] / settings['shard_size'])):
        if (record := read_record(folder, number, settings)) is None:
            return None
        records.append(record)
    return records


def index_entries(records: Iterable[dict]) -> list[dict]:
    """What the index says of the shards."""
    return [{key: r[key] for key in ('file', 'num_samples', 'sha256')} for r in records]


def write_shards(
    folder: Path,
    settings: dict,
    make: Callable[[list[range]], Iterator[tuple[dict[str, torch.Tensor], dict]]],
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Make the shards of one rank that are missing, in a folder that is claimed.

    Args:
        make: from the items of each missing shard, the tensors of each and what else its record
            is to say, in order.
    """
    count, size = settings['source']['num_images'], settings['shard_size']
    mine = range(rank, math.ceil(count / size), world_size)
    missing = [number for number in mine if read_record(folder, number, settings) is None]
    spans = [range(number * size, min((number + 1) * size, count)) for number in missing]
    for number, (tensors, further) in zip(missing, make(spans), strict=True):
        record = save_shard(folder, number, tensors) | further
        record['settings'] = settings_digest(settings)
        write_json(_record_path(folder, number), record)

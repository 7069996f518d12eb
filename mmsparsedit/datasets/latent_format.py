"""Latents on disk: safetensors shards and an index, the layout described in ``docs/data.md``.

A folder holds ``index.json`` and ``shard-00000.safetensors``, ``shard-00001.safetensors``, ...
The index is written last, so a folder with an index is complete.

Shapes: n samples of a shard, C channels, h x w latent cells.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from mmsparsedit.utils.files import atomic_write, read_json, sha256_of

# open files a process keeps for a data set at most; and of the files that it may open, a third
MAX_OPEN_SHARDS = 512
SHARE_OF_FILES = 3
FORMAT = 'mmsparsedit-latents'
VERSION = 1
INDEX_NAME = 'index.json'
SEAL = 'index_sha256'
DTYPES = {'bf16': torch.bfloat16, 'fp32': torch.float32}
# what a safetensors header calls the same types
HEADER_DTYPES = {'bf16': 'BF16', 'fp32': 'F32'}
KINDS = ('moments', 'sample')
INDEX_KEYS = (
    'num_samples',
    'latent_shape',
    'dtype',
    'kind',
    'flipped',
    'scale_factor',
    'classes',
    'provenance',
    'shards',
)


def shard_name(number: int) -> str:
    """File name of a shard, ``shard-00007.safetensors``."""
    return f'shard-{number:05d}.safetensors'


def tensor_names(kind: str, flipped: bool = False) -> list[str]:
    """Names of the tensors that make one item, in the order they are concatenated.

    Args:
        kind: ``'moments'`` (mean and log-variance of the autoencoder) or ``'sample'``.
        flipped: the copies made from horizontally flipped images.
    """
    names = ['mean', 'logvar'] if kind == 'moments' else ['sample']
    return [f'{name}_flip' if flipped else name for name in names]


def dump_json(content: Mapping) -> bytes:
    """The bytes of a JSON file: the same content gives the same bytes."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + '\n').encode('utf-8')


def sealed(content: Mapping) -> dict:
    """The content of an index with the SHA-256 of its own JSON as its last entry."""
    return {**content, SEAL: hashlib.sha256(dump_json(content)).hexdigest()}


def write_json(path: Path, content: Mapping) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_bytes(dump_json(content))


def save_shard(folder: str | Path, number: int, tensors: Mapping[str, torch.Tensor]) -> dict:
    """Write one shard and return its entry for the index: file, num_samples, sha256.

    Args:
        tensors: ``label`` (n,) int64 and the tensors of :func:`tensor_names`, each
            (n, C, h, w) of one of :data:`DTYPES`. n may be 0.
    """
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    with atomic_write(Path(folder) / shard_name(number)) as beside:
        beside.write_bytes(data)
    return {
        'file': shard_name(number),
        'num_samples': len(tensors['label']),
        'sha256': hashlib.sha256(data).hexdigest(),
    }


def write_index(folder: str | Path, *, shards: Sequence[Mapping], **fields) -> Path:
    """Write ``index.json``, which makes the folder complete. Call it after the last shard.

    Args:
        shards: the entries that :func:`save_shard` returned, in order.
        fields: ``latent_shape`` (C, h, w); ``dtype``, ``kind``, ``flipped``; ``scale_factor``, by
            which a reader multiplies a latent to reach the network's space (what is stored is not
            multiplied); ``classes``, the name of every class by label, empty if they have none;
            ``provenance``, how the latents were made: autoencoder, image size, transforms, source.
    """
    fields |= {'num_samples': sum(shard['num_samples'] for shard in shards), 'shards': list(shards)}
    if fields.keys() != set(INDEX_KEYS):
        raise TypeError(f'got the fields {sorted(fields)}, expected {sorted(INDEX_KEYS)}')
    path = Path(folder) / INDEX_NAME
    ordered = {key: fields[key] for key in INDEX_KEYS}
    write_json(path, sealed({'format': FORMAT, 'version': VERSION, **ordered}))
    return path


def load_index(path: Path, name: str, version: int, advice: str) -> dict:
    """The index of a folder of shards; ValueError if damaged or of another format or version.

    An index of earlier versions has no checksum of itself.
    """
    index = read_json(path, advice='Extract again, finished shards are kept.')
    got = {key: index.get(key) for key in ('format', 'version')}
    if got != {'format': name, 'version': version}:
        raise ValueError(
            f'{path}: got {got!r}, expected format {name!r}, version {version}. {advice}'
        )
    seal = index.pop(SEAL, None)
    if seal is not None and sealed(index)[SEAL] != seal:
        raise ValueError(
            f'{path} is damaged or was edited: its content has another checksum than it says. '
            'Delete it and extract again, finished shards are kept.'
        )
    check_shards(path, index.get('shards'))
    return index


def check_shards(path: Path, shards: object) -> None:
    """Refuse what does not describe shards that lie beside the index."""
    kinds = {'file': str, 'num_samples': int, 'sha256': str}
    for entry in shards if isinstance(shards, list) else [shards]:
        found = entry if isinstance(entry, dict) else {}
        if any(type(found.get(key)) is not kind for key, kind in kinds.items()) or (
            Path(found['file']).name != found['file'] or found['num_samples'] < 0
        ):
            raise ValueError(
                f'{path} is damaged: got the shard {str(entry)[:100]}, expected its file, '
                'num_samples and sha256. Extract again, finished shards are kept.'
            )


def read_index(folder: str | Path) -> dict:
    """Read and check ``index.json``.

    Raises:
        FileNotFoundError: no such folder, or a folder without an index; the text names the
            commands that fill it.
        ValueError: the index is of another format or version, or damaged.
    """
    folder = Path(folder)
    path = folder / INDEX_NAME
    if not path.is_file():
        if not folder.is_dir():
            what = f'there is no folder of latents {str(folder)!r}'
        elif any(folder.glob('shard-*.safetensors')):
            what = (
                f'the folder of latents {str(folder)!r} is unfinished: it has shards but no '
                f'{INDEX_NAME}, which the extraction writes last'
            )
        else:
            what = f'the folder {str(folder)!r} holds no latents ({INDEX_NAME} is missing)'
        raise FileNotFoundError(
            f'{what}. Fill it from images with `python '
            f'tools/dataset_converters/extract_latents.py CONFIG --out {folder}` (it continues '
            'where it stopped), or with stand-in latents, to try a config without data, with '
            f'`python tools/dataset_converters/make_toy_latents.py --random 256 --out {folder}`.'
        )
    index = load_index(
        path,
        FORMAT,
        VERSION,
        'Name a folder written by tools/dataset_converters/extract_latents.py; '
        "one-file-per-image features of fast-DiT are read by type='FastDiTFeatures'.",
    )
    missing = [key for key in INDEX_KEYS if key not in index]
    wrong = [key for key, kind in _INDEX_KINDS.items() if not isinstance(index.get(key), kind)]
    if missing or wrong or index['dtype'] not in DTYPES or index['kind'] not in KINDS:
        raise ValueError(
            f'{path} is damaged: missing keys {missing}, of a wrong kind {wrong}, dtype '
            f'{index.get("dtype")!r} (expected one of {list(DTYPES)}), kind {index.get("kind")!r} '
            f'(expected one of {list(KINDS)}). Extract the latents again.'
        )
    shape = index['latent_shape']
    if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f'{path} is damaged: latent_shape {shape}, expected (C, h, w).')
    return index


_INDEX_KINDS = {
    'num_samples': int,
    'latent_shape': list,
    'dtype': str,
    'kind': str,
    'flipped': bool,
    'scale_factor': int | float,
    'classes': list,
    'provenance': dict,
}


@dataclass(frozen=True)
class ShardLayout:
    """Where the tensors of a shard lie in its file (safetensors: 8 bytes, header, data).

    Attributes:
        offsets: byte at which each tensor starts.
        shapes: shape of each tensor.
        dtypes: type of each tensor, as the header spells it (BF16, F32, I64).
    """

    offsets: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def read_layout(path: str | Path) -> ShardLayout:
    """Read the header of a shard; the file must be exactly as long as its header says.

    Raises:
        FileNotFoundError: the shard is missing.
        ValueError: not a safetensors file, or shortened.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'shard {path} is named by {path.parent / INDEX_NAME} but missing. Copy it again, or '
            'delete the index and run extract_latents.py again: it makes only what is missing.'
        )
    size = path.stat().st_size
    try:
        with open(path, 'rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            header = json.loads(file.read(min(length, size)))
        header.pop('__metadata__', None)
        start = 8 + length
        offsets = {name: start + entry['data_offsets'][0] for name, entry in header.items()}
        end = start + max(entry['data_offsets'][1] for entry in header.values())
        shapes = {name: tuple(entry['shape']) for name, entry in header.items()}
        dtypes = {name: entry['dtype'] for name, entry in header.items()}
        for name, entry in header.items():
            begin, stop = entry['data_offsets']
            if not 0 <= begin <= stop or stop - begin != _num_bytes(shapes[name], dtypes[name]):
                raise ValueError(f'{name} of {shapes[name]} at {begin} to {stop}')
    except (
        struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError
    ) as error:  # fmt: skip
        raise ValueError(
            f'{path} is no safetensors file ({error}): find the damaged shards with `python '
            f'tools/dataset_converters/verify_latents.py {path.parent}`'
        ) from error
    if end != size:
        raise ValueError(
            f'{path}: got {size} bytes, expected {end}: the copy is incomplete. Copy the shard '
            'again, or delete it and the index and run extract_latents.py again.'
        )
    return ShardLayout(offsets, shapes, dtypes)


def _num_bytes(shape: tuple[int, ...], dtype: str) -> int:
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f'shape {shape}')
    return math.prod(shape) * {'I64': 8, 'F32': 4, 'F16': 2, 'BF16': 2}[dtype]


def read_column(path: str | Path, layout: ShardLayout, name: str) -> np.ndarray:
    """A tensor (n,) of int64 of a shard."""
    with open(path, 'rb') as file:
        file.seek(layout.offsets[name])
        return np.frombuffer(file.read(8 * layout.shapes[name][0]), dtype='<i8')


def max_open_shards() -> int:
    """Shards that a data set keeps open: a share of what ``ulimit -n`` allows the process."""
    try:
        import resource
    except ImportError:  # not on Windows
        return MAX_OPEN_SHARDS
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return MAX_OPEN_SHARDS
    return max(1, min(MAX_OPEN_SHARDS, allowed // SHARE_OF_FILES))


class ShardFiles:
    """Descriptors of shards, opened when first read; the one unused for longest is closed when
    there are many. Copies in other processes open their own."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self._files: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, shard: int) -> int:
        file = self._files.pop(shard, None)
        if file is None:
            if len(self._files) >= max_open_shards():
                os.close(self._files.popitem(last=False)[1])
            file = self._open(shard)
        self._files[shard] = file
        return file

    def _open(self, shard: int) -> int:
        while True:
            try:
                return os.open(self.paths[shard], os.O_RDONLY)
            except OSError as error:  # others of this process have taken what is left
                if error.errno != errno.EMFILE or not self._files:
                    raise
                os.close(self._files.popitem(last=False)[1])

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_files': OrderedDict()}

    def __del__(self) -> None:
        for file in getattr(self, '_files', {}).values():
            os.close(file)


def verify_folder(folder: str | Path, num_threads: int = 4) -> list[str]:
    """Recompute every checksum of a folder of latents; one line per problem, none if sound.

    The index of a folder carries its own checksum, which reading it compares.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_index`.
    """
    folder = Path(folder)
    index = read_index(folder)

    def check(entry: Mapping) -> str | None:
        path = folder / entry['file']
        if not path.is_file():
            return f'{entry["file"]}: missing'
        got = sha256_of(path)
        if got != entry['sha256']:
            return f'{entry["file"]}: sha256 is {got}, expected {entry["sha256"]}'
        count = read_layout(path).shapes['label'][0]
        if count != entry['num_samples']:
            return f'{entry["file"]}: {count} samples, expected {entry["num_samples"]}'
        return None

    with ThreadPoolExecutor(num_threads) as pool:
        problems = [problem for problem in pool.map(check, index['shards']) if problem]
    total = sum(entry['num_samples'] for entry in index['shards'])
    if total != index['num_samples']:
        problems.append(f'{INDEX_NAME}: num_samples {index["num_samples"]}, the shards sum {total}')
    return problems

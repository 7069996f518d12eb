"""Text features on disk, extracted once: shards of this package (``docs/text_to_image.md``).

A folder holds ``index.json`` (written last) and safetensors shards with ``tokens`` (S, C), the
valid tokens of all captions of the shard one behind the other, ``length`` (n,) and ``label`` (n,),
the number of each caption. Padding is not stored: masked tokens have no influence.

n captions of a shard, S tokens of them all, L places of a caption, C width of the text encoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsparsedit.registry import DATASETS
from mmsparsedit.utils.files import atomic_write

from .latent_format import (
    DTYPES,
    INDEX_NAME,
    ShardFiles,
    load_index,
    read_column,
    read_index,
    read_layout,
    sealed,
    shard_name,
    write_json,
)
from .latents import LatentDataset
from .shard_check import ShardCheck
from .shard_writer import (
    check_sizes,
    claim_folder,
    index_entries,
    read_records,
    source_of,
    write_shards,
)

FORMAT = 'mmsparsedit-captions'
VERSION = 1
NULL_NAME = 'null_caption.npz'


def caption_settings(dataset, encoder, name: str, dtype: str = 'bf16', shard_size: int = 1024):
    """What decides the bytes of the features, and their provenance; plain containers.

    Args:
        dataset: ``CaptionedImages``, or anything with ``len``, ``caption`` and ``digest``.
        encoder: a text encoder of ``mmsparsedit.models``.
        name: of the encoder, to be read by people.
    """
    check_sizes(dtype, shard_size=shard_size)
    return {
        'source': source_of(dataset),
        'encoder': {
            'name': name,
            'digest': encoder.digest(),
            'channels': encoder.channels,
            'max_length': encoder.max_length,
        },
        'dtype': dtype,
        'shard_size': shard_size,
    }


def extract_captions(
    dataset,
    encoder,
    folder: str | Path,
    settings: dict,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = 'cpu',
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Make the missing shards of one rank; the index too, if they were the last.

    Shard k belongs to rank k mod world_size; a finished one is kept.

    Returns:
        Whether the folder is complete; False while other ranks are at work.
    """
    folder = Path(folder)
    claim_folder(folder, settings)
    write_null_caption(folder / NULL_NAME, encoder, device)

    def make(spans: list[range]) -> Iterator[tuple[dict[str, Tensor], dict]]:
        done, total = 0, sum(map(len, spans))
        for span in spans:
            tokens, lengths = [], []
            for start in range(0, len(span), batch_size):
                batch = span[start : start + batch_size]
                y, mask = encoder.encode([dataset.caption(i) for i in batch], device)
                valid = mask.bool()
                stored = y[valid].to('cpu', DTYPES[settings['dtype']])
                if not stored.isfinite().all():
                    raise ValueError(
                        f'the text encoder gave features of captions {batch[0]} to {batch[-1]} '
                        'that are not finite. Its computation overflowed: set its dtype to '
                        "'float32' or 'bfloat16'."
                    )
                tokens.append(stored)
                lengths.append(valid.sum(1).cpu())
                done += len(batch)
                progress(done, total)
            yield (
                {
                    'label': torch.tensor(list(span), dtype=torch.int64),
                    'length': torch.cat(lengths).long(),
                    'tokens': torch.cat(tokens),
                },
                {},
            )

    write_shards(folder, settings, make, rank, world_size)
    records = read_records(folder, settings)
    if records is None:
        return False
    index = {'format': FORMAT, 'version': VERSION, **settings, 'shards': index_entries(records)}
    write_json(folder / INDEX_NAME, sealed(index))
    return True


def write_null_caption(path: Path, encoder, device: str | torch.device = 'cpu') -> None:
    """The encoded empty caption in PixArt's format, for ``TextToImageGenerator.null_caption``."""
    y, mask = encoder.encode([''], device)
    with atomic_write(path) as beside, open(beside, 'wb') as file:
        np.savez(file, caption_feature=y.cpu().numpy(), attention_mask=mask.cpu().numpy())


class CaptionFeatures:
    """Reader of a folder of ``extract_captions``: caption number -> features, read by position.

    Args:
        root: the folder.
        channels: C that the config expects.
        max_length: L; longer captions are cut as the tokenizer would cut them.
        verify: when shards are compared with their SHA-256, as for ``LatentDataset``.

    Raises:
        FileNotFoundError: no such folder, an unfinished one, a missing shard.
        ValueError: features of another width, a damaged index or shard; at reading, features that
            are not finite.
    """

    def __init__(
        self,
        root: str | Path,
        channels: int,
        max_length: int,
        verify: str | None = 'background',
    ) -> None:
        self.root = Path(root)
        self.max_length = max_length
        index = _read_index(self.root)
        got = index['encoder']['channels']
        if got != channels:
            raise ValueError(
                f'{self.root}: got text features of width {got} ({index["encoder"]["name"]}), '
                f'expected {channels}: extract them with the text encoder of the config, or set '
                'caption_channels of network and data set.'
            )
        self.channels = channels
        self.source = index['source']
        self._dtype = DTYPES[index['dtype']]
        self._row_bytes = channels * self._dtype.itemsize
        self._paths, self._starts, self._lengths = [], [], []
        for number in range(len(index['shards'])):
            path = self.root / shard_name(number)
            layout = read_layout(path)
            shape = layout.shapes.get('tokens', ())
            if len(shape) != 2 or shape[1] != channels or layout.dtypes.get('length') != 'I64':
                raise ValueError(
                    f'{path}: got tokens of shape {shape}, expected (S, {channels}) by the index, '
                    'and the length of each caption. Delete the shard and extract again.'
                )
            lengths = read_column(path, layout, 'length')
            if lengths.min(initial=0) < 0 or lengths.sum() != shape[0]:
                raise ValueError(
                    f'{path}: got captions of {lengths.sum()} tokens in all, expected {shape[0]}. '
                    'Delete the shard and extract again.'
                )
            first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            self._paths.append(str(path))
            self._lengths.append(lengths)
            self._starts.append(layout.offsets['tokens'] + first * self._row_bytes)
        self._shard_size = index['shard_size']
        self._files = ShardFiles(self._paths)
        self.check = ShardCheck(self._paths, index['shards'], verify)

    def __len__(self) -> int:
        return sum(map(len, self._lengths))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Features (L, C) float32, zero at padding, and mask (L,) int64."""
        self.check.poll()
        shard, row = divmod(number, self._shard_size)
        length = min(int(self._lengths[shard][row]), self.max_length)
        size = length * self._row_bytes
        data = os.pread(self._files[shard], size, int(self._starts[shard][row]))
        if len(data) != size:
            raise OSError(f'{self._paths[shard]}: read {len(data)} of {size} bytes of row {row}')
        y = torch.zeros(self.max_length, self.channels)
        if length:  # torch reads no empty buffer
            y[:length] = torch.frombuffer(bytearray(data), dtype=self._dtype).view(length, -1)
        if not y.isfinite().all():
            raise ValueError(
                f'{self._paths[shard]}: got text features of row {row} with NaN or infinity, '
                'expected finite numbers. Delete the shard and extract again.'
            )
        mask = torch.zeros(self.max_length, dtype=torch.int64)
        mask[:length] = 1
        return y, mask


def _read_index(folder: Path) -> dict:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f'{str(folder)!r} holds no text features ({INDEX_NAME} is missing or not yet written): '
            'fill it with `python tools/dataset_converters/extract_text_features.py CONFIG --out '
            f'{folder}` (it continues where it stopped).'
        )
    index = load_index(path, FORMAT, VERSION, 'Name a folder of extract_text_features.py.')
    encoder = index.get('encoder')
    found = encoder.get('channels') if isinstance(encoder, dict) else None
    sizes = {'encoder.channels': found, 'shard_size': index.get('shard_size')}
    wrong = [name for name, value in sizes.items() if type(value) is not int or value < 1]
    if wrong or index.get('dtype') not in DTYPES or not isinstance(index.get('source'), dict):
        raise ValueError(
            f'{path} is damaged: wrong {wrong}, dtype {index.get("dtype")!r} (expected one of '
            f'{list(DTYPES)}), source {str(index.get("source"))[:80]}. Extract again, finished '
            'shards are kept.'
        )
    return index


@DATASETS.register_module()
class CaptionedLatents(LatentDataset):
    """Latents of ``extract_latents.py`` with text features of ``extract_text_features.py``.

    Both are made from one ``CaptionedImages``; a latent's label is the number of its caption. An
    item is ``dict(inputs (2C, h, w), y (L, caption_channels), mask (L,))``.

    Args:
        caption_root: folder of the text features.
        caption_channels, max_length: width of the text encoder, places of a caption.
        flip: whether to read flipped copies of the latents; a caption that tells left from right
            is wrong for them, so they are left out (PixArt does not flip).
        verify: when shards of both are compared with their SHA-256, as for ``LatentDataset``.

    Raises:
        FileNotFoundError, ValueError: as ``LatentDataset`` and ``CaptionFeatures``; latents and
            features of different images.
    """

    def __init__(
        self,
        data_root: str | Path,
        caption_root: str | Path,
        caption_channels: int = 4096,
        max_length: int = 120,
        latent_shape: tuple[int, ...] | None = None,
        flip: bool = False,
        scale_factor: float | None = None,
        verify: str | None = 'background',
    ) -> None:
        self.captions = CaptionFeatures(caption_root, caption_channels, max_length, verify)
        super().__init__(data_root, latent_shape, None, flip, scale_factor, verify)
        if self.labels.max() >= len(self.captions):
            raise ValueError(
                f'{data_root} has latents of caption {self.labels.max()}, {caption_root} has '
                f'{len(self.captions)} captions: extract both from the same data set.'
            )
        source = read_index(data_root)['provenance'].get('source')
        if source != self.captions.source:
            raise ValueError(
                f'{data_root} and {caption_root} come from different images or captions: got '
                f'{source}, expected {self.captions.source}. Extract both from the same data set.'
            )

    def __getitems__(self, indices) -> list[dict]:
        items = super().__getitems__(indices)
        for item in items:
            item['y'], item['mask'] = self.captions[item.pop('label')]
        return items

"""A folder of finished samples that sampling can be resumed into, and metrics can be run over.

One lossless PNG per sample, named by its index, put in place whole; label and seed are text chunks
inside it. Several threads write and read: zlib lets go of Python's lock. Frames of a video stand
one below the other. ``store.json`` describes what makes the samples, so that a folder is never
filled from two configs or checkpoints.
"""

import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmsparsedit.datasets.transforms.loading import open_image
from mmsparsedit.utils.files import atomic_write, clear_parts, first_line, read_json, write_text
from mmsparsedit.visualization import METADATA_KEY

STORE_FORMAT = 1
# of zlib: a third of the time of its default (6) for a tenth more bytes, on a photograph
COMPRESSION = 1
THREADS = min(8, len(os.sched_getaffinity(0)))  # beyond that the disk is the slower one


class SampleStore:
    """Finished samples in a folder, by index; several processes may write different indexes.

    Args:
        folder: created if it is not there.
        description: JSON values that decide the samples: hash of config and checkpoint, sampler,
            steps, guidance, seed ... None opens an existing folder as it is.

    Raises:
        ValueError: the folder was filled under another description (the differing keys are named),
            or holds something else.
    """

    def __init__(self, folder: str | os.PathLike, description: dict | None = None) -> None:
        self.folder = Path(folder)
        card = self.folder / 'store.json'
        if not card.is_file():
            if description is None:
                raise FileNotFoundError(f'got {self.folder}, expected a folder with store.json')
            if self.folder.is_dir() and any(self.folder.glob('*.png')):
                raise ValueError(
                    f'got {self.folder} with images and without store.json, expected an empty '
                    'folder: choose another one'
                )
            text = json.dumps({'format': STORE_FORMAT, 'fingerprint': description}, indent=2)
            write_text(card, text)
        found = read_json(card, advice='Delete the folder and sample again.')
        if found.get('format') != STORE_FORMAT:
            raise ValueError(f'got {card} of format {found.get("format")}, expected {STORE_FORMAT}')
        self.description = dict(found.get('fingerprint') or {})
        clear_parts(self.folder)
        if description is not None:
            self._compare(json.loads(json.dumps(description)))

    def _compare(self, description: dict) -> None:
        keys = sorted(self.description.keys() | description.keys())
        differing = [
            f'{key}: {self.description.get(key)!r} there, {description.get(key)!r} now'
            for key in keys
            if self.description.get(key) != description.get(key)
        ]
        if differing:
            raise ValueError(
                f'got the folder {self.folder} with samples of another run ({"; ".join(differing)}'
                '), expected the same: choose another folder or delete this one'
            )

    def _path(self, index: int) -> Path:
        return self.folder / f'{index:06d}.png'

    def __contains__(self, index: int) -> bool:
        return self._path(index).is_file()

    def __len__(self) -> int:
        return len(self.indices())

    def indices(self) -> list[int]:
        """Indexes of the finished samples, ascending."""
        names = (Path(entry.name) for entry in os.scandir(self.folder))
        return sorted(
            int(name.stem) for name in names if name.suffix == '.png' and name.stem.isdigit()
        )

    def missing(self, total: int) -> list[int]:
        """Indexes below ``total`` that are still to be made, ascending."""
        done = set(self.indices())
        return [index for index in range(total) if index not in done]

    def add(self, samples: Sequence[dict | BaseDataElement]) -> None:
        """Write samples with ``image`` (C, H, W) or ``video`` (F, C, H, W), uint8, and ``index``.

        C is 1 or 3. Other entries that are int, float or str (label, seed, prompt) are kept too.
        """
        plain = [s.to_dict() if isinstance(s, BaseDataElement) else s for s in samples]
        with ThreadPoolExecutor(THREADS) as writers:
            list(writers.map(self._write, plain))  # raises what went wrong there

    def _write(self, sample: dict) -> None:
        from PIL import Image, PngImagePlugin

        kind = 'video' if 'video' in sample else 'image'
        pixels = torch.as_tensor(sample[kind]).cpu()
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 + (kind == 'video'):
            raise ValueError(
                f'got {kind} of shape {tuple(pixels.shape)} and {pixels.dtype}, expected '
                '(C, H, W) or (F, C, H, W) of torch.uint8: convert with mmsparsedit.utils.uint8'
            )
        if pixels.shape[-3] not in (1, 3):
            raise ValueError(f'got {pixels.shape[-3]} channels, expected 1 or 3')
        frames = pixels if kind == 'video' else pixels[None]  # (F, C, H, W)
        rows = frames.permute(0, 2, 3, 1).flatten(0, 1)  # (F * H, W, C)
        image = Image.fromarray(rows.squeeze(-1).contiguous().numpy())
        kept = {
            key: value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
            for key, value in sample.items()
        }
        kept = {key: value for key, value in kept.items() if isinstance(value, int | float | str)}
        info = PngImagePlugin.PngInfo()
        kept |= {'kind': kind, 'frames': len(frames)}
        info.add_text(METADATA_KEY, json.dumps(kept, sort_keys=True))
        with atomic_write(self._path(int(sample['index'])), durable=False) as beside:
            image.save(beside, 'PNG', pnginfo=info, compress_level=COMPRESSION)

    def read(self, index: int) -> dict:
        """Sample ``index`` as it was added."""
        path = self._path(index)
        if not path.is_file():
            raise FileNotFoundError(f'got no sample {index} in {self.folder}: make it first')
        try:
            image = open_image(path, ('PNG',))
            rows = np.array(image)
            sample = json.loads(image.text[METADATA_KEY])
            frames, kind = sample.pop('frames'), sample.pop('kind')
            rows = rows if rows.ndim == 3 else rows[..., None]  # (F * H, W, C)
            pixels = torch.from_numpy(rows).unflatten(0, (frames, -1))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = getattr(error, 'reason', first_line(error))
            raise ValueError(
                f'got {path}, expected a finished sample: it is damaged, delete it and sample '
                f'again ({reason})'
            ) from error
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        return {kind: pixels if kind == 'video' else pixels[0], **sample}

    def samples(self, indices: Sequence[int] | None = None) -> Iterator[dict]:
        """Samples of the given indexes, by default all that are there, ascending.

        A few are read ahead by as many threads.
        """
        wanted = iter(self.indices() if indices is None else indices)
        with ThreadPoolExecutor(THREADS) as readers:
            ahead = deque(readers.submit(self.read, i) for i in islice(wanted, 2 * THREADS))
            try:
                while ahead:
                    yield ahead.popleft().result()
                    ahead.extend(readers.submit(self.read, i) for i in islice(wanted, 1))
            finally:
                readers.shutdown(cancel_futures=True)

    def evaluate(
        self, evaluator, total: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> dict:
        """Run an ``mmengine.evaluator.Evaluator`` over samples 0 ... total - 1.

        Batches depend on ``total``, ``batch_size`` and the number of processes, not on what was
        made when, so an interrupted and an uninterrupted run give the same numbers.
        """
        missing = self.missing(total)
        if missing:
            raise ValueError(
                f'got {total - len(missing)} samples in {self.folder}, expected {total}: the first '
                f'missing one is {missing[0]}, sample again into this folder'
            )
        samples = self.samples(range(rank, total, world_size))
        while batch := list(islice(samples, batch_size)):
            evaluator.process(batch)
        return evaluator.evaluate(total)

    def export_npz(self, path: str | os.PathLike, total: int | None = None) -> None:
        """Write ADM's npz: ``arr_0`` uint8 (N, H, W, 3) in index order, ``arr_1`` labels if known.

        Grey images are repeated to three channels.

        The images are streamed, so 50 000 of 256 x 256 (9.8 GB) need no more memory than one.
        """
        total = len(self) if total is None else total
        missing = self.missing(total)
        if missing or total == 0:
            raise ValueError(
                f'got {total - len(missing)} samples in {self.folder}, expected {max(total, 1)}'
            )
        first = self.read(0)
        if 'image' not in first:
            raise ValueError(f'got videos in {self.folder}, expected images: ADM npz are of images')
        height, width = first['image'].shape[1:]
        labels = []
        header = {
            'descr': np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
            'fortran_order': False,
            'shape': (total, height, width, 3),
        }

        with atomic_write(path) as beside:
            with zipfile.ZipFile(beside, 'w', allowZip64=True) as archive:
                with archive.open('arr_0.npy', 'w', force_zip64=True) as stream:
                    np.lib.format.write_array_header_1_0(stream, header)
                    for sample in self.samples(range(total)):
                        if sample['image'].shape != first['image'].shape:
                            raise ValueError(
                                f'got sample {sample["index"]} of {tuple(sample["image"].shape)}, '
                                f'expected {tuple(first["image"].shape)}'
                            )
                        pixels = sample['image'].expand(3, -1, -1).permute(1, 2, 0)
                        stream.write(pixels.contiguous().numpy().tobytes())
                        labels.append(sample.get('label'))
                if all(isinstance(label, int) for label in labels):
                    with archive.open('arr_1.npy', 'w') as stream:
                        np.lib.format.write_array(stream, np.asarray(labels, dtype=np.int64))

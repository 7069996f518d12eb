"""Images with captions: own folders, JSON Lines, the SAM layout, PixArt's JSON."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.logging import print_log

from mmsparsedit.registry import DATASETS
from mmsparsedit.utils.files import is_special

from .imagenet import ImageNet
from .transforms.loading import IMAGE_EXTENSIONS

CAPTION_KEYS = ('caption', 'text', 'prompt')
PATH_KEYS = ('file_name', 'path', 'image')


class CaptionError(ValueError):
    """A caption that cannot be used: missing, empty, not UTF-8."""


def checked_caption(caption: object) -> str:
    """The caption without surrounding white space; CaptionError if nothing is left."""
    if not isinstance(caption, str):
        raise CaptionError(f'the caption is {type(caption).__name__}, not text')
    if not caption.strip():
        raise CaptionError('the caption is empty')
    return caption.strip()


def decode_utf8(data: bytes) -> str:
    """Text of a file, with or without a byte order mark; CaptionError if it is not UTF-8."""
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise CaptionError(f'the caption is not UTF-8 (byte {error.start})') from error


def read_caption(path: str | os.PathLike) -> str:
    """The caption in a text file.

    Raises:
        CaptionError: no such file, an empty one, a pipe, other encodings than UTF-8.
    """
    try:
        if is_special(path):
            raise CaptionError('the caption is no regular file')
        return checked_caption(decode_utf8(Path(path).read_bytes()))
    except FileNotFoundError as error:
        raise CaptionError('the image has no caption') from error
    except IsADirectoryError as error:
        raise CaptionError('the caption is a folder') from error


def read_stems(paths: Sequence[str]) -> list[str]:
    """Names without ending from partition lists, one per line, in order.

    Raises:
        FileNotFoundError: a list is missing.
    """
    stems = []
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'there is no partition list {path!r}: write one name without ending per line, or '
                'name the lists that exist.'
            )
        lines = decode_utf8(Path(path).read_bytes()).splitlines()
        stems += [line.strip() for line in lines if line.strip()]
    return stems


@DATASETS.register_module()
class CaptionedImages(ImageNet):
    """Images with captions, one caption each.

    Where captions come from:

    * by default from text files beside the images, ``cat.jpg`` and ``cat.txt``, or below
      ``caption_dir`` under the same name. ``image_dir='images', caption_dir='captions'`` is SAM's
      layout, and ``partitions`` names lists of stems of which only those images are taken;
    * from ``ann_file``: JSON Lines, or one JSON list (PixArt's ``data_info.json``), of objects with
      a path (``file_name``, ``path`` or ``image``, below ``image_dir``) and a caption
      (``caption``, ``text`` or ``prompt``).

    Images without a usable caption are left out, counted in ``skipped`` and logged; too large a
    share of them ends the run. Item i is ``dict(inputs, label=i, prompt)``: the label is the number
    of the caption, so that latents extracted from this data set find their text features
    (``CaptionedLatents``). Corrupt images are replaced as in ``ImageNet``.

    Args:
        data_root: folder that all names start from.
        pipeline: transforms, as for ``ImageNet``.
        max_skipped_share: of images without a usable caption.
        max_ratio: images of a JSON list whose ``ratio`` is larger are left out (PixArt: 4).

    Raises:
        FileNotFoundError: no such folder or list, no images.
        ValueError: a line that is no JSON object, too many images without a caption.
    """

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence = (),
        image_dir: str = '',
        caption_dir: str | None = None,
        partitions: Sequence[str] | None = None,
        ann_file: str | None = None,
        max_skipped_share: float = 0.01,
        max_corrupt_share: float = 0.01,
        max_ratio: float = 4.0,
    ) -> None:
        if not os.path.isdir(data_root):
            raise FileNotFoundError(
                f'there is no folder of captioned images {str(data_root)!r}: set data_root to the '
                'folder that holds the images and their captions.'
            )
        if ann_file is not None and (caption_dir is not None or partitions is not None):
            raise ValueError(
                'got ann_file together with caption_dir or partitions: captions come from one or '
                'the other, drop one.'
            )
        self.image_dir = os.path.join(data_root, image_dir)
        self.caption_dir = self.image_dir
        if caption_dir is not None:
            self.caption_dir = os.path.join(data_root, caption_dir)
        self.partitions = partitions
        self.annotations = None if ann_file is None else os.path.join(data_root, ann_file)
        self.max_skipped_share = max_skipped_share
        self.max_ratio = max_ratio
        self.skipped: list[dict] = []
        super().__init__(data_root, pipeline, max_corrupt_share=max_corrupt_share)

    def load_data_list(self) -> list[dict]:
        """Paths, captions and their numbers, in the order of the data set."""
        found = self._from_annotations() if self.annotations else self._from_files()
        items: list[dict] = []
        for path, caption in found:
            if isinstance(caption, CaptionError):
                self.skipped.append({'path': self._below_root(path), 'reason': str(caption)})
            else:
                items.append({'img_path': path, 'label': len(items), 'prompt': caption})
        total = len(items) + len(self.skipped)
        if not total:
            raise FileNotFoundError(
                f'{self.annotations or self.image_dir} names no images: expected files ending in '
                f'{" ".join(IMAGE_EXTENSIONS)} with captions in .txt files, or ann_file.'
            )
        if self.skipped:
            first = self.skipped[0]
            text = (
                f'{len(self.skipped)} of {total} images have no usable caption; the first is '
                f'{first["path"]}: {first["reason"]}'
            )
            if not items or len(self.skipped) > self.max_skipped_share * total:
                raise ValueError(
                    f'{self.data_root}: {text}. Expected at most {self.max_skipped_share:.2%} '
                    '(max_skipped_share). Mend the captions, remove the images, or raise it.'
                )
            print_log(f'{text}; skipped', logger='current', level=logging.WARNING)
        return items

    def _from_files(self) -> Iterator[tuple[str, str | CaptionError]]:
        for path in self._image_paths():
            below = os.path.relpath(path, self.image_dir)
            text = os.path.join(self.caption_dir, os.path.splitext(below)[0] + '.txt')
            try:
                yield path, read_caption(text)
            except CaptionError as error:
                yield path, error

    def _image_paths(self) -> Iterator[str]:
        if self.partitions is not None:
            lists = [os.path.join(self.data_root, name) for name in self.partitions]
            yield from (os.path.join(self.image_dir, f'{stem}.jpg') for stem in read_stems(lists))
            return
        for folder, folders, files in os.walk(self.image_dir):
            folders.sort()
            for file in sorted(files):
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    yield os.path.join(folder, file)

    def _from_annotations(self) -> Iterator[tuple[str, str | CaptionError]]:
        for where, entry in read_annotations(self.annotations):
            path = next((entry[key] for key in PATH_KEYS if key in entry), None)
            if not isinstance(path, str):
                raise ValueError(f'{where}: got keys {sorted(entry)}, expected one of {PATH_KEYS}')
            if number(entry, 'ratio', where) > self.max_ratio:
                continue
            path = os.path.join(self.image_dir, path)
            caption = next((entry[key] for key in CAPTION_KEYS if key in entry), '')
            try:
                yield path, checked_caption(caption)
            except CaptionError as error:
                yield path, error

    def _digested(self, item: dict) -> str:
        return f'{self._below_root(item["img_path"])}\0{item["prompt"]}\n'

    def caption(self, index: int) -> str:
        return self.get_data_info(index)['prompt']

    def load(self, index: int) -> dict:
        """The item of one image with its caption."""
        return {**super().load(index), 'prompt': self.caption(index)}


def read_annotations(path: str) -> Iterator[tuple[str, dict]]:
    """Objects of a JSON Lines file or of a JSON list, each with where it stands.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, no JSON, no object.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'there is no file of captions {path!r}: write one JSON object per line with file_name '
            'and caption, or leave ann_file out to read .txt files beside the images.'
        )
    data = Path(path).read_bytes()
    if data.lstrip()[:1] == b'[':
        try:
            entries = json.loads(decode_utf8(data))
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{path} is no JSON list: {error}') from error
        places = [f'{path}, entry {number}' for number in range(len(entries))]
    else:
        entries, places = [], []
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                places.append(f'{path}, line {number}')
                entries.append(_json_line(line, places[-1]))
    for where, entry in zip(places, entries, strict=True):
        if not isinstance(entry, dict):
            raise ValueError(f'{where}: got {type(entry).__name__}, expected an object.')
        yield where, entry


def number(entry: dict, key: str, where: str) -> float:
    """A number of an annotation; 0 where it has none."""
    value = entry.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'{where}: got {key} {str(value)[:80]!r}, expected a number.')
    return float(value)


def _json_line(line: bytes, where: str) -> object:
    try:
        return json.loads(decode_utf8(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{where} is no JSON in UTF-8 ({error}): expected e.g. '
            '{"file_name": "a.jpg", "caption": "a cat"}'
        ) from error

"""What a user's folder holds: images in classes, images with captions, or videos."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmsparsedit.datasets.captions import read_annotations
from mmsparsedit.datasets.transforms.loading import IMAGE_EXTENSIONS
from mmsparsedit.datasets.transforms.video import CorruptVideoError
from mmsparsedit.datasets.video_reader import find_videos, open_video

from .launch import ConfigError

# names of files of captions, in the order they are looked for
ANNOTATIONS = ('metadata.jsonl', 'captions.jsonl', 'data_info.json')


@dataclass
class OwnFolder:
    """A folder that was looked at.

    Attributes:
        kind: ``'images'`` with classes, ``'captions'``, or ``'videos'``.
        classes: items by name of the class, in the order of the labels; empty where there are none.
        sides: shorter side of each image, or of the first frame of each video, in pixels.
        lengths: frames of each video.
        layout: of videos, ``'files'`` or ``'frames'``.
        ann_file: of captions; None for text files beside the images.
        captions: of the images, in the order of the data set.
        damaged: files that cannot be read.
    """

    path: Path
    kind: str
    classes: dict[str, int] = field(default_factory=dict)
    sides: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    layout: str = 'files'
    ann_file: str | None = None
    captions: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.sides)

    def describe(self) -> str:
        """One line: what there is."""
        what = dict(images='images', captions='captioned images', videos='videos')[self.kind]
        text = f'{self.count} {what}'
        if self.classes:
            shown = [f'{name} {count}' for name, count in self.classes.items()]
            text += f' in {len(shown)} classes: {", ".join(shown[:8])}'
            text += ', ...' if len(shown) > 8 else ''
        return text


def look_at(folder: str | os.PathLike) -> OwnFolder:
    """Find out what a folder holds.

    Raises:
        ConfigError: nothing to train on, images both inside and outside class folders, or too many
            files that cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f'there is no folder {str(folder)!r}: name the one that holds your data.')
    if find_videos(path, 'files'):
        return _videos(path, 'files')
    images = sorted(
        p.relative_to(path) for p in path.rglob('*') if p.suffix.lower() in IMAGE_EXTENSIONS
    )
    if not images:
        raise ConfigError(
            f'{folder} holds neither images ({" ".join(IMAGE_EXTENSIONS)}) nor videos.'
        )
    ann_file = next((name for name in ANNOTATIONS if (path / name).is_file()), None)
    with_text = sum((path / image).with_suffix('.txt').is_file() for image in images)
    if ann_file or with_text > len(images) / 2:
        return _captioned(path, ann_file)
    loose = [image for image in images if len(image.parts) == 1]
    if loose:
        raise ConfigError(
            f'{folder}: got {len(loose)} images outside any class folder, such as {loose[0]}. Sort '
            'them into one folder per class (one folder where there is one kind), or write their '
            f'captions into text files beside them, or into {ANNOTATIONS[0]}.'
        )
    found = OwnFolder(path, 'images')
    _read_sides(found, images)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    counts = Counter(image.parts[0] for image in images)
    empty = [name for name in names if not counts[name]]
    if empty:
        raise ConfigError(
            f'{folder}: the folder {empty[0]!r} holds no image and would still be a class: fill or '
            'remove it.'
        )
    found.classes = {name: counts[name] for name in names}
    return found


def as_frames(folder: OwnFolder) -> OwnFolder:
    """The same folder read as videos, each a folder of frame images."""
    return _videos(folder.path, 'frames')


def _read_sides(found: OwnFolder, images: list[Path]) -> None:
    from mmsparsedit.datasets.transforms.loading import CorruptImageError, open_image

    for image in images:
        try:
            found.sides.append(min(open_image(found.path / image).size))
        except CorruptImageError:
            found.damaged.append(image.as_posix())
    _check_damaged(found, len(images))


def _captioned(path: Path, ann_file: str | None) -> OwnFolder:
    from mmsparsedit.datasets import CaptionedImages

    if ann_file is not None:
        first = next(iter(read_annotations(str(path / ann_file))), None)
        if first is None:
            raise ConfigError(f'{path / ann_file} is empty: write one JSON object per image.')
    dataset = CaptionedImages(str(path), ann_file=ann_file)
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = OwnFolder(path, 'captions', ann_file=ann_file)
    found.captions = [item['prompt'] for item in items]
    _read_sides(found, [Path(os.path.relpath(item['img_path'], path)) for item in items])
    return found


def _videos(path: Path, layout: str) -> OwnFolder:
    found = OwnFolder(path, 'videos', layout=layout)
    videos = find_videos(path, layout)
    inside = [video for video in videos if '/' in video]
    if inside and len(inside) < len(videos):
        loose = next(video for video in videos if '/' not in video)
        raise ConfigError(
            f'{path}: got {loose!r} outside the class folders that other videos are in: sort all '
            'of them into classes, or none.'
        )
    kept: Counter = Counter()
    for video in videos:
        try:
            reader = open_video(path / video)
            found.sides.append(min(reader.read([0]).shape[1:3]))
            found.lengths.append(len(reader))
            kept[video.split('/')[0]] += 1
        except CorruptVideoError:
            found.damaged.append(video)
    _check_damaged(found, len(videos))
    if inside:
        found.classes = {name: kept[name] for name in sorted(kept)}
    return found


def _check_damaged(found: OwnFolder, total: int) -> None:
    if len(found.damaged) > 0.01 * total:
        raise ConfigError(
            f'{found.path}: {len(found.damaged)} of {total} files cannot be read, such as '
            f'{found.damaged[0]}; training takes 1 % at most. Mend or remove them.'
        )

"""The config of a user's own data: one of the package, with all that the data change.

What is inherited stays inherited, so that the file shows what is the user's own.
"""

from dataclasses import dataclass
from pathlib import Path

from mmsparsedit.mim import config_names, config_path

from .launch import ConfigError, load_config
from .own_folder import OwnFolder, as_frames, look_at

DEFAULT_LIKE = dict(images='sparsedit/xl_256.py', captions='sparsepixart/sam_256.py')
WIDTH = 96  # of a line of the config


@dataclass
class OwnProject:
    """Where everything of a new project is, and what it is like.

    Attributes:
        like: name of the config that is inherited.
        size: pixels of an image's side.
        config: settings besides ``_base_``, in order, each with its comment.
        latents, text, prompts, reference: paths that the config names; None where it needs none.
        notes: what the user should know.
    """

    folder: OwnFolder
    like: str
    size: int
    config: list[tuple[str, str, object]]
    reference: str
    latents: str | None = None
    text: str | None = None
    prompts: str | None = None
    notes: tuple[str, ...] = ()

    def render(self) -> str:
        """The text of the config."""
        lines = [
            f'# {self.folder.path.resolve().name}: {self.folder.describe()}.',
            f'# All else is as in {self.like} of the package.',
            f"_base_ = __import__('mmsparsedit').config_path({self.like!r})",
            '',
        ]
        for comment, key, value in self.config:
            lines += [f'# {comment}'] if comment else []
            lines += [f'{key} = {render(value)}']
        return '\n'.join(lines) + '\n'


def find_like(name: str) -> str:
    """The config of the package that a short name such as ``xl_256`` stands for.

    Where several base models have one of that name it is DiT's, the folder ``sparsedit``.

    Raises:
        ConfigError: none of that name, or several and none of them DiT's.
    """
    plain = name.removeprefix('mmsparsedit::').removesuffix('.py')
    known = [each for each in config_names() if not each.startswith('_base_')]
    found = [each for each in known if each.removesuffix('.py') == plain]
    found = found or [each for each in known if Path(each).stem == plain]
    found = [each for each in found if Path(each).parent.name == 'sparsedit'] or found
    if len(found) > 1:
        raise ConfigError(f'--like {name}: got several, {", ".join(found)}: name one in full.')
    if not found:
        try:
            config_path(name)
        except FileNotFoundError as error:
            raise ConfigError(f'--like {name}: {error}') from error
    return found[0]


def plan(
    path: str | Path,
    like: str | None = None,
    size: int | None = None,
    num_samples: int | None = None,
    data: str | Path = 'data',
    vae: str | None = None,
) -> OwnProject:
    """Look at a folder and work out its config; nothing is written.

    Args:
        like: config of the package to inherit (``find_like``); by default one that suits the data.
        size: pixels of an image's side, by default that of ``like``.
        num_samples: that a test makes and measures.
        data: folder for latents, features and references.
        vae: folder of the autoencoder.

    Raises:
        ConfigError: data that the config cannot be trained on.
    """
    folder = look_at(path)
    if like is None:
        videos = 'sparselatte/ucf101.py' if folder.classes else 'sparselatte/ffs.py'
        like = DEFAULT_LIKE.get(folder.kind, videos)
    like = find_like(like)
    base = load_config(config_path(like))
    network = base.model.network
    wanted = 'images'
    if 'Latte' in network.type:
        wanted = 'videos'
        if folder.kind == 'images':
            folder = as_frames(folder)
    elif 'PixArt' in network.type:
        wanted = 'captions'
    if folder.kind != wanted:
        raise ConfigError(
            f'{path} holds {folder.describe()}; {like} is trained on {wanted}. Name another '
            '--like: mmsparsedit configs lists them.'
        )
    return _Planner(folder, like, base, size, num_samples, Path(data), vae).project()


class _Planner:
    def __init__(self, folder, like, base, size, num_samples, data, vae) -> None:
        self.folder, self.like, self.base, self.data = folder, like, base, data
        network = base.model.network
        self.latent = base.model.get('autoencoder') is not None
        if wanted_pixels_with_captions(folder, self.latent):
            raise ConfigError(
                f'{like} makes its captions itself; captions of your own need latents and a text '
                'encoder: use --like sparsepixart/sam_256.py.'
            )
        self.factor = 8 if self.latent else 1
        old = network.input_size
        if not isinstance(old, int):
            raise ConfigError(f'{like} is not square: name another --like.')
        self.size = size or old * self.factor
        step = self.factor * network.patch_size
        if self.size % step or self.size < 2 * step:
            raise ConfigError(f'--size {self.size}: expected a multiple of {step} pixels.')
        self.cells, self.resized = self.size // self.factor, self.size != old * self.factor
        self.vae, self.name = vae, folder.path.resolve().name
        self.num_samples = num_samples or (
            50_000 if folder.count >= 50_000 else 10_000 if folder.count >= 5_000 else 5_000
        )
        if folder.kind == 'videos':
            self.num_samples = num_samples or 2048
        self.notes: list[str] = []

    def project(self) -> OwnProject:
        folder = self.folder
        small = sum(side < self.size for side in folder.sides)
        if small > len(folder.sides) / 2:
            raise ConfigError(
                f'{small} of {folder.count} are smaller than {self.size} pixels, the shortest '
                f'{min(folder.sides)}: they would be enlarged. Name a smaller --size or --like.'
            )
        if small:
            self.notes.append(f'{small} of {folder.count} are enlarged to {self.size} pixels')
        if folder.damaged:
            self.notes.append(f'{len(folder.damaged)} cannot be read and are left out')
        stem = f'{self.name}_{self.size}'
        self.latents = (self.data / f'{stem}_latents').as_posix() if self.latent else None
        self.reference = (self.data / f'{stem}_reference.npz').as_posix()
        captions = folder.kind == 'captions'
        self.text = (self.data / f'{stem}_text').as_posix() if captions else None
        self.prompts = (self.data / f'{stem}_prompts.txt').as_posix() if captions else None
        self.root = str(folder.path.resolve())
        self.classes = len(folder.classes) or None
        parts = dict(images=self._images, captions=self._captions, videos=self._videos)
        dataset, source, requests = parts[folder.kind]()
        config = [('classes and sizes of the data', 'model', self._model())]
        config += self._start()
        config += [('what is trained on', 'train_dataloader', self._loader(dataset))]
        if self.latent:
            extract = dict(dataset=source)
            config += [('what `mmsparsedit extract` reads', 'extract', extract)]
        config += self._length()
        config += self._measure(requests)
        return OwnProject(
            folder, self.like, self.size, config, self.reference, self.latents, self.text,
            self.prompts, tuple(self.notes),
        )  # fmt: skip

    def _model(self) -> dict:
        network: dict = {}
        if self.folder.kind != 'captions':
            network['num_classes'] = self.classes
        if self.resized:
            network['input_size'] = self.cells
        if not self.latent:
            network['in_channels'] = 3
        model: dict = dict(network=network) if network else {}
        prune = self.base.model.get('prune')
        if prune is not None and self.resized:
            tokens = self.cells // self.base.model.network.patch_size
            grid = tuple(prune.token_grid)
            model['prune'] = dict(token_grid=(*grid[:-2], tokens, tokens))
        if self.classes == 1 or (self.folder.kind == 'videos' and self.classes is None):
            model['cfg_scale'] = 1.0  # one kind of data: nothing to guide towards
        if self.vae:
            model['autoencoder'] = dict(pretrained=str(Path(self.vae).resolve()))
        return model

    def _start(self) -> list:
        source = self.base.get('load_from')
        had = self.base.model.network.get('num_classes')
        if source is None:
            return []
        if not Path(source).is_file():
            self.notes.append(
                f'training starts from {source}, which is not there: put it there ({self.like} '
                'says where it comes from), or train with --cfg-options load_from=None'
            )
        if self.folder.kind == 'captions' or had == self.classes:
            return []
        if had is None or self.classes is None:
            raise ConfigError(
                f'{self.like} has {"no" if had is None else had} classes, {self.root} '
                f'{self.classes or "none"}: name a --like with classes (sparselatte/ucf101.py), '
                'or without (sparselatte/ffs.py).'
            )
        options = dict(reinitialise=['y_embedder'])
        return [(f'the checkpoint to start from knows {had} classes', 'load_options', options)]

    def _images(self) -> tuple[dict, dict, dict]:
        crop = [
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=self.size),
            dict(type='PackImage'),
        ]
        source = dict(data_root=self.root, num_classes=self.classes, pipeline=crop)
        requests = dict(num_classes=self.classes)
        if self.latent:
            dataset = dict(
                data_root=self.latents,
                num_classes=self.classes,
                latent_shape=(4, self.cells, self.cells),
            )
            return dataset, source, requests
        return dict(_delete_=True, type='ImageNet', **source), source, requests

    def _captions(self) -> tuple[dict, dict, dict]:
        network = self.base.model.network
        dataset = dict(
            _delete_=True,
            type='CaptionedLatents',
            data_root=self.latents,
            caption_root=self.text,
            caption_channels=network.caption_channels,
            max_length=network.model_max_length,
            latent_shape=(4, self.cells, self.cells),
        )
        source = dict(
            _delete_=True,
            type='CaptionedImages',
            data_root=self.root,
            ann_file=self.folder.ann_file,
            pipeline=[
                dict(type='LoadImage'),
                dict(type='CenterCropADM', size=self.size),
                dict(type='PackImage'),
            ],
        )
        return dataset, source, dict(prompts=self.prompts)

    def _videos(self) -> tuple[dict, dict, dict]:
        frames = self.base.model.network.num_frames
        before = self.base.train_dataloader.dataset
        before = before.get('clip') or before
        interval, rule = before.frame_interval, before.rule
        enough = sorted(self.folder.lengths)[len(self.folder.lengths) // 2]
        while interval > 1 and (frames - 1) * interval + 1 > enough:
            interval -= 1
        if interval < before.frame_interval:
            self.notes.append(
                f'frame_interval {interval} instead of {before.frame_interval}: half of the videos '
                f'have {enough} frames at most'
            )
        span = (frames - 1) * interval + 1
        short = sum(length < span for length in self.folder.lengths)
        if short > len(self.folder.lengths) / 2:
            raise ConfigError(
                f'{short} of {self.folder.count} videos are shorter than the {frames} frames of '
                f'{self.like}, the longest has {max(self.folder.lengths)}: name longer videos, or '
                'a --like of fewer frames.'
            )
        if short:
            self.notes.append(f'{short} videos of fewer than {span} frames are left out')
        crop = [
            dict(type='ResizeShortSide', size=self.size),
            dict(type='CenterCropClip', size=self.size),
            dict(type='PackClip'),
        ]
        clip = dict(num_frames=frames, frame_interval=interval, rule=rule)
        labels = {} if self.classes is None else dict(num_classes=self.classes)
        where = dict(data_root=self.root, layout=self.folder.layout)
        source = dict(_delete_=True, type='VideoFrames', **where, min_frames=span, pipeline=crop)
        if self.latent:
            dataset = dict(
                _delete_=True,
                type='VideoLatents',
                data_root=self.latents,
                latent_shape=(4, self.cells, self.cells),
                **clip,
                min_frames=span,
                **labels,
                scale_factor=self.base.model.scale_factor,
            )
        else:
            dataset = dict(
                _delete_=True, type='VideoDataset', **where, **labels, clip=clip, pipeline=crop
            )
        self.interval = interval
        return dataset, source, labels

    def _loader(self, dataset: dict) -> dict:
        batch = self.base.train_dataloader.batch_size
        loader = dict(dataset=dataset)
        if batch > self.folder.count:
            loader = dict(batch_size=max(1, self.folder.count), **loader)
        return loader

    def _length(self) -> list:
        """Iterations, and what follows from them: the average of weights, checkpoints, pictures."""
        iterations = self.base.train_cfg.max_iters
        batch = self.base.train_dataloader.batch_size
        config = []
        if not self.base.get('param_scheduler'):  # its milestones count the iterations of the base
            epochs = 200 * self.folder.count // batch
            iterations = min(iterations, max(5_000, epochs))
            what = '200 times each item, but at least 5 000 iterations, on one process'
            config = [(what, 'train_cfg', dict(max_iters=iterations))]
        momentum = max(self.base.default_hooks.ema.momentum, round(10 / iterations, 6))
        every = max(1, iterations // 10)
        shown: dict = dict(interval=every)
        if self.folder.kind == 'images' or self.classes:
            shown |= dict(num_samples=16, labels=list(range(min(16, self.classes))))
        if self.folder.kind == 'captions':
            different = list(dict.fromkeys(self.folder.captions))
            prompts = spread(different, 4)
            shown |= dict(num_samples=len(prompts), prompts=prompts)
        if 'columns' in self.base.default_hooks.sample_grid:
            shown['columns'] = 4
        hooks = dict(
            ema=dict(momentum=momentum, gamma=10),  # momentum 10 / iterations so far, at first
            checkpoint=dict(interval=every),
            sample_grid=shown,
        )
        what = 'average of weights with a warm-up; checkpoints and pictures ten times a training'
        return [*config, (what, 'default_hooks', hooks)]

    def _measure(self, requests: dict) -> list:
        kinds = dict(videos='FVD')
        metric = dict(
            _delete_=True,
            type=kinds.get(self.folder.kind, 'ADMMetrics'),
            reference=self.reference,
            num_samples=self.num_samples,
        )
        asked = dict(dataset=dict(num_samples=self.num_samples, **requests))
        if self.folder.kind == 'captions':
            kind = dict(_delete_=True, type='PromptRequests', num_samples=self.num_samples)
            asked = dict(dataset={**kind, **requests})
        what = 'what a test samples, and what its samples are held to'
        config = [(what, 'test_dataloader', asked), ('', 'test_evaluator', metric)]
        if self.base.get('val_dataloader'):  # the base measures its own data amid training
            config += [
                (comment, key, None)
                for comment, key in (
                    ('measured by `mmsparsedit test` alone', 'val_dataloader'),
                    ('', 'val_cfg'),
                    ('', 'val_evaluator'),
                )
            ]
        return config


def wanted_pixels_with_captions(folder: OwnFolder, latent: bool) -> bool:
    return folder.kind == 'captions' and not latent


def spread(values: list, count: int) -> list:
    """``count`` of the values, evenly spaced."""
    return values[:: max(1, len(values) // count)][:count]


def render(value, indent: int = 0) -> str:
    """A value as Python, broken where it is too long for a line."""
    if isinstance(value, dict):
        items = [f'{k}={render(v, indent + 4)}' for k, v in value.items()]
        opening, closing = 'dict(', ')'
    elif isinstance(value, list):
        items, opening, closing = [render(v, indent + 4) for v in value], '[', ']'
    else:
        return repr(value)
    line = f'{opening}{", ".join(items)}{closing}'
    if '\n' not in line and indent + len(line) <= WIDTH:
        return line
    space = ' ' * (indent + 4)
    return '\n'.join([opening, *(f'{space}{item},' for item in items), ' ' * indent + closing])

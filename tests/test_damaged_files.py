"""Every kind of file that this package reads, damaged in seeded ways.

A reader may refuse, in one line that names the file; it may give what was written; where the format
has a checksum it gives nothing else. It never runs what a file holds, starts a program or writes.
"""

import gc
import gzip
import json
import math
import pickle

import numpy as np
import pytest
import torch
import yaml
from damage import copies, damaged, damaged_json, damaged_member, watched
from PIL import Image

from mmsparsedit.apis.benchmark import read_cases
from mmsparsedit.apis.config_files import read_config, recorded_config
from mmsparsedit.apis.launch import one_line
from mmsparsedit.apis.run_history import read_history
from mmsparsedit.apis.runs import read_run
from mmsparsedit.datasets import CaptionedImages, FastDiTFeatures, LatentDataset
from mmsparsedit.datasets.caption_features import FORMAT as CAPTIONS
from mmsparsedit.datasets.caption_features import VERSION, CaptionFeatures
from mmsparsedit.datasets.latent_format import save_shard, sealed, write_index, write_json
from mmsparsedit.datasets.sam import read_latent_feature, read_text_feature
from mmsparsedit.datasets.transforms.loading import LoadImage
from mmsparsedit.datasets.video_reader import open_video
from mmsparsedit.engine.checkpoint_files import check_resumable, find_sound_checkpoint
from mmsparsedit.evaluation.images import open_images
from mmsparsedit.evaluation.references import read_moments, read_provenance
from mmsparsedit.evaluation.store import SampleStore
from mmsparsedit.models.checkpoints import read_checkpoint, write_checkpoint
from mmsparsedit.visualization.videos import save_mp4

SEED, TRIES = 0, 40


class Harm:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


def weights():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(3, 5, generator=generator) for name in ('a.weight', 'b.weight')}


def training():
    return dict(
        meta=dict(iter=4, epoch=0, saved_at=1.0, cfg='model = dict()', seed=0),
        state_dict=weights(),
        ema_state_dict={f'module.{name}': weight / 2 for name, weight in weights().items()},
        message_hub=dict(log_scalars={}, runtime_info={'iter': 4}, resumed_keys={}),
        optimizer=dict(state={0: dict(exp_avg=torch.ones(3))}, param_groups=[dict(lr=0.1)]),
    )


def resumable(path):
    checkpoint = read_checkpoint(path)
    check_resumable(path, checkpoint, averaged=True)
    return checkpoint


def latents(folder):
    tensors = {'mean': torch.randn(5, 4, 2, 2), 'logvar': torch.randn(5, 4, 2, 2)}
    shards = [
        save_shard(folder, k, {**tensors, 'label': torch.arange(5) + 5 * k}) for k in range(2)
    ]
    write_index(
        folder, shards=shards, latent_shape=(4, 2, 2), dtype='fp32', kind='moments',
        flipped=False, scale_factor=0.18215, classes=[], provenance={'source': {}},
    )  # fmt: skip


def captions(folder):
    tensors = dict(label=torch.arange(3), length=torch.tensor([2, 0, 3]), tokens=torch.randn(5, 4))
    shard = save_shard(folder, 0, tensors)
    index = dict(
        format=CAPTIONS, version=VERSION, source={'num_images': 3, 'digest': 'a'}, dtype='fp32',
        encoder=dict(name='T5', digest='b', channels=4, max_length=6), shard_size=3,
        shards=[shard],
    )  # fmt: skip
    write_json(folder / 'index.json', sealed(index))


def latent_items(path):
    return LatentDataset(path.parent, verify='start').__getitems__(range(10))


def caption_items(path):
    features = CaptionFeatures(path.parent, 4, 6, verify='start')
    return [features[k] for k in range(3)]


def fast_dit(folder):
    return FastDiTFeatures(folder, features='features', labels='labels')[0]


def picture(size=24):
    x = np.linspace(0, 255, size * size * 3).reshape(size, size, 3)
    return Image.fromarray((255 * np.sin(x) ** 2).astype(np.uint8))


def pixels(path):
    return LoadImage()({'img_path': str(path)})['img']


def write_store(folder):
    store = SampleStore(folder, {'seed': 0})
    store.add([dict(image=torch.arange(192).view(3, 8, 8).byte(), index=0, label=7, prompt='cat')])


def captioned(path):
    found = CaptionedImages(str(path.parent), max_skipped_share=1.0, **(
        {} if path.suffix == '.txt' else {'ann_file': path.name}
    ))  # fmt: skip
    items = map(found.get_data_info, range(len(found)))
    return [(item['img_path'], item['prompt']) for item in items]


def run_folder(folder):
    (folder / 'digits.py').write_text("model = dict(a=1, b=[2.5, 'x'])\nlr = 1e-4\n")
    (folder / 'last_checkpoint').write_text('iter_4.pth')
    write_json(folder / 'metrics.json', {'metrics': {'FID': 3.5}, 'recipe': {'versions': {}}})
    scalars = folder / '20260101_000000/vis_data/scalars.json'
    scalars.parent.mkdir(parents=True)
    lines = [dict(iter=k, step=k, loss=1 / k, lr=1e-4) for k in range(1, 5)]
    scalars.write_text('\n'.join(map(json.dumps, lines)))


def history(path):
    folder = next(p for p in path.parents if (p / 'last_checkpoint').exists())
    found = read_history(folder)
    return found.training, found.metrics


def video(path):
    reader = open_video(path)
    return reader.read(range(len(reader)))


def configs():
    return dict(model=dict(type='X', prune=dict(r_min=0.1)), train_cfg=dict(max_iters=5), a=[1, 2])


def make(folder):
    """A sound file of every kind below ``folder``."""
    write_checkpoint(training(), folder / 'iter_4.pth')
    torch.save(training(), folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    write_checkpoint(weights(), folder / 'net.safetensors')
    for name, fill in dict(latents=latents, captions=captions, run=run_folder).items():
        (folder / name).mkdir()
        fill(folder / name)
    write_store(folder / 'store')
    np.savez(folder / 'images.npz', arr_0=np.arange(768, dtype=np.uint8).reshape(4, 8, 8, 3))
    np.savez(
        folder / 'reference.npz', mu=np.arange(3.0), sigma=np.eye(3),
        provenance=json.dumps({'features': {'name': 'x'}}),
    )  # fmt: skip
    np.savez(folder / 'text.npz', caption_feature=np.ones((1, 6, 4), np.float32),
             attention_mask=np.ones((1, 6), np.int64))  # fmt: skip
    np.save(folder / 'latent.npy', np.ones((8, 2, 2), np.float32))
    for name in ('features', 'labels'):
        (folder / 'fast' / name).mkdir(parents=True)
    np.save(folder / 'fast/features/0.npy', np.ones((1, 4, 2, 2), np.float32))
    np.save(folder / 'fast/labels/0.npy', np.array([3]))
    for ending in ('png', 'jpg', 'bmp', 'gif', 'tiff', 'webp', 'ppm'):
        picture().save(folder / f'picture.{ending}')
    text = folder / 'annotated'
    text.mkdir()
    picture(4).save(text / 'a.png')
    (text / 'a.txt').write_text('two cats\n')
    lines = [dict(file_name='a.png', caption='two cats', ratio=1.5)] * 2
    (text / 'lines.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    (text / 'list.json').write_text(json.dumps(lines))
    (folder / 'config.json').write_text(json.dumps(configs()))
    (folder / 'config.yaml').write_text(yaml.safe_dump(configs()))
    cases = [dict(title='x', config='sparsedit/digits', baseline='sparsedit/dit_digits', batch=[1])]
    (folder / 'cases.yml').write_text(yaml.safe_dump(cases))


# file, its reader, whether a checksum covers its content, and how it is damaged
KINDS = {
    'checkpoint': ('iter_4.pth', resumable, True, [damaged]),
    'checkpoint with right checksums': ('iter_4.pth', resumable, False, [damaged_member]),
    'checkpoint of old PyTorch': ('legacy.pth', resumable, False, [damaged]),
    'weights': ('net.safetensors', read_checkpoint, True, [damaged]),
    'shard': ('latents/shard-00001.safetensors', latent_items, True, [damaged]),
    'index': ('latents/index.json', latent_items, True, [damaged, damaged_json]),
    'text features': ('captions/shard-00000.safetensors', caption_items, True, [damaged]),
    'index of text': ('captions/index.json', caption_items, True, [damaged, damaged_json]),
    'images as npz': (
        'images.npz', lambda p: list(open_images(p).batches(3)), True, [damaged],
    ),
    'images as npz, right checksums': (
        'images.npz', lambda p: list(open_images(p).batches(3)), False, [damaged_member],
    ),
    'reference': (
        'reference.npz',
        lambda p: [*vars(read_moments(p, ('mu', 'sigma'))).values(), read_provenance(p)],
        True, [damaged],
    ),
    'reference, right checksums': (
        'reference.npz',
        lambda p: [*vars(read_moments(p, ('mu', 'sigma'))).values(), read_provenance(p)],
        False, [damaged_member],
    ),
    'text feature of SAM': ('text.npz', lambda p: read_text_feature(p, 4, 6), True, [damaged]),
    'latent of SAM': ('latent.npy', lambda p: read_latent_feature(p, (4, 2, 2)), False, [damaged]),
    'fast-DiT': (
        'fast/features/0.npy',
        lambda p: fast_dit(p.parents[1]), False, [damaged],
    ),
    'label of fast-DiT': (
        'fast/labels/0.npy',
        lambda p: fast_dit(p.parents[1]), False, [damaged],
    ),
    'PNG': ('picture.png', pixels, True, [damaged]),
    **{
        ending: (f'picture.{ending}', pixels, False, [damaged])
        for ending in ('jpg', 'bmp', 'gif', 'tiff', 'webp', 'ppm')
    },
    'sample': ('store/000000.png', lambda p: SampleStore(p.parent).read(0), True, [damaged]),
    'store': ('store/store.json', lambda p: SampleStore(p.parent).read(0), False,
              [damaged, damaged_json]),
    'caption': ('annotated/a.txt', captioned, False, [damaged]),
    'lines of captions': ('annotated/lines.jsonl', captioned, False, [damaged, damaged_json]),
    'list of captions': ('annotated/list.json', captioned, False, [damaged, damaged_json]),
    'JSON config': ('config.json', lambda p: read_config(p).to_dict(), False,
                    [damaged, damaged_json]),
    'YAML config': ('config.yaml', lambda p: read_config(p).to_dict(), False, [damaged]),
    'recorded config': ('run/digits.py', lambda p: recorded_config(p).to_dict(), False, [damaged]),
    'metrics': ('run/metrics.json', lambda p: read_run(p.parent).metrics, False,
                [damaged, damaged_json]),
    'history': ('run/20260101_000000/vis_data/scalars.json', history, False,
                [damaged, damaged_json]),
    'metrics of a history': ('run/metrics.json', history, False, [damaged, damaged_json]),
    'table of cases': ('cases.yml', lambda p: list(map(vars, read_cases(str(p), p.parent))), False,
                       [damaged]),
}  # fmt: skip


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    make(folder)
    return folder


def attack(path, read, checksum, ways, tries=TRIES, seed=SEED):
    """How many damaged copies were refused; AssertionError where one did harm."""
    data = path.read_bytes()
    expected, refused = read(path), 0
    try:
        for key, copy in copies(data, tries, seed, *ways):
            path.write_bytes(copy)
            with watched() as seen:
                try:
                    found = read(path)
                except (ValueError, OSError) as error:
                    text, refused = one_line(error), refused + 1
                    named = path.name, path.with_suffix('.png').name  # a caption's image
                    assert any(name in text for name in named), (key, text)
                    assert len(text) < 2000, (key, len(text))
                else:
                    assert not checksum or same(expected, found), f'{key}: accepted, and differs'
            assert not seen, (key, seen)
    finally:
        path.write_bytes(data)
    return refused


@pytest.mark.parametrize('kind', KINDS)
def test_damage_is_refused_or_harmless(sound, kind, monkeypatch):
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)  # by MMEngine, at each data set
    name, *rest = KINDS[kind]
    refused = attack(sound / name, *rest)
    assert refused >= TRIES // 2 or not rest[1]


def test_a_damaged_video_is_refused_or_read(tmp_path):
    path = tmp_path / 'video.mp4'
    save_mp4(path, torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8), cell=1)
    assert attack(path, video, False, [damaged], tries=24) >= 4


def test_what_runs_when_it_is_unpickled_does_not_run(sound, tmp_path):
    harm = tmp_path / 'harm'
    evil = pickle.dumps(Harm(harm))
    objects = np.array([Harm(harm)], dtype=object)
    torch.save({**training(), 'meta': Harm(harm)}, tmp_path / 'iter_8.pth')
    torch.save(Harm(harm), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    (tmp_path / 'bare.pth').write_bytes(evil)
    (tmp_path / 'zipped.pth').write_bytes(gzip.compress(evil))
    np.savez(tmp_path / 'images.npz', arr_0=objects)
    np.save(tmp_path / 'latent.npy', objects)
    (tmp_path / 'config.yaml').write_text(f'a: !!python/object/apply:os.mknod ["{harm}"]')
    (tmp_path / 'picture.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    readers = {
        'iter_8.pth': resumable, 'old.pth': read_checkpoint, 'bare.pth': read_checkpoint,
        'zipped.pth': read_checkpoint, 'images.npz': open_images, 'config.yaml': read_config,
        'latent.npy': lambda p: read_latent_feature(p, (4, 2, 2)), 'picture.jpg': pixels,
    }  # fmt: skip
    for name, read in readers.items():
        with watched() as seen, pytest.raises((ValueError, OSError), match=name):
            read(tmp_path / name)
        assert not seen and not harm.exists(), (name, seen)
    found = find_sound_checkpoint(tmp_path)
    assert found.path is None and 'iter_8.pth' in found.passed_over[0] and not harm.exists()

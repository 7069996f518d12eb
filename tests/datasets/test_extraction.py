"""Extraction of latents: the same bytes after a kill, with two processes, with workers."""

import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from mmsparsedit.datasets import ImageNet, LatentDataset, extraction
from mmsparsedit.datasets.latent_format import read_index, verify_folder
from mmsparsedit.models.autoencoders import DiffusersVAE

from photograph_folder import CORRUPT, NUM_GOOD

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_converters' / 'extract_latents.py'
SIZE = 32


def load_tool():
    spec = importlib.util.spec_from_file_location('extract_latents', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def config(photographs, small_vae, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'config.py'
    path.write_text(f"""
model = dict(autoencoder=dict(type='DiffusersVAE', pretrained={str(small_vae)!r}))
extract = dict(
    dataset=dict(type='ImageNet', data_root={str(photographs)!r}, num_classes=4,
                 max_corrupt_share=0.2,
                 pipeline=[dict(type='LoadImage'), dict(type='CenterCropADM', size={SIZE}),
                           dict(type='PackImage')]),
    batch_size=2, num_workers=0)
""")
    return path


def arguments(config, out):
    return [str(config), '--out', str(out), '--shard-size', '3', '--device', 'cpu']


def run_command(arguments, environment, shards_until_killed):
    """The command; it may die in a rename of a shard: written beside its place, no more."""
    os.environ.update(environment)
    rename, shards = os.replace, 0

    def replace(source, target):
        nonlocal shards
        shards += str(target).endswith('.safetensors')
        if shards == shards_until_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace
    sys.exit(load_tool().main(arguments))


def start(arguments, environment=(), shards_until_killed=None):
    """The command in a process of its own, forked: libraries are loaded already."""
    context = multiprocessing.get_context('fork')
    process = context.Process(
        target=run_command, args=(arguments, dict(environment), shards_until_killed)
    )
    process.start()
    return process


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope='module')
def runs(config, tmp_path_factory):
    """Folders: uninterrupted; killed half way; by two processes, as a launcher starts them."""
    root = tmp_path_factory.mktemp('latents')
    killed = start(arguments(config, root / 'killed'), shards_until_killed=4)
    two = [
        start(
            [*arguments(config, root / 'two'), '--launcher', 'pytorch'],
            dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2'),
        )
        for rank in range(2)
    ]
    assert load_tool().main(arguments(config, root / 'whole')) == 0
    for process in (killed, *two):
        process.join(300)
    assert killed.exitcode == -signal.SIGKILL
    assert [process.exitcode for process in two] == [0, 0]
    return root


def test_killed_and_restarted_equals_uninterrupted(runs, config, tmp_path):
    folder = shutil.copytree(runs / 'killed', tmp_path / 'killed')
    names = [path.name for path in folder.iterdir()]
    shards = sorted(name for name in names if name.startswith('shard') and name.endswith('tensors'))
    assert shards == [f'shard-0000{k}.safetensors' for k in range(3)]  # of seven
    assert 'index.json' not in names and any(name.endswith('.part') for name in names)
    with pytest.raises(FileNotFoundError, match='is unfinished'):
        LatentDataset(folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in shards}

    load_tool().main(arguments(config, folder))
    assert contents(folder) == contents(runs / 'whole')
    assert before == {name: (folder / name).stat().st_mtime_ns for name in shards}
    assert verify_folder(folder) == []


def test_two_processes_equal_one(runs):
    assert contents(runs / 'two') == contents(runs / 'whole')


def test_reading_processes_change_nothing(runs, config, tmp_path):
    options = ['--cfg-options', 'extract.num_workers=2']
    load_tool().main([*arguments(config, tmp_path / 'out'), *options])
    assert contents(tmp_path / 'out') == contents(runs / 'whole')


def test_latents_are_the_moments_of_the_images(runs, photographs, small_vae):
    dataset = LatentDataset(runs / 'whole', latent_shape=(4, 4, 4), num_classes=4)
    assert len(dataset) == 2 * NUM_GOOD
    pipeline = [
        dict(type='LoadImage'),
        dict(type='CenterCropADM', size=SIZE),
        dict(type='PackImage'),
    ]
    images = ImageNet(str(photographs), pipeline, max_corrupt_share=0.2)
    good = [item for item in map(images.read, range(len(images))) if 'corrupt' not in item]
    assert dataset.labels.tolist() == [item['label'] for item in good]
    vae = DiffusersVAE(str(small_vae))
    for index in range(len(dataset)):
        image = good[index // 2]['inputs'].flip(-1) if index % 2 else good[index // 2]['inputs']
        expected = torch.cat(vae.encode(image[None]), dim=1)[0]
        got = dataset[index]['inputs']
        torch.testing.assert_close(got, expected, rtol=2**-8, atol=1e-5)  # bfloat16


def test_index_tells_how_it_was_made(runs):
    index = read_index(runs / 'whole')
    assert index['classes'] == ['animals', 'objects', 'people', 'textures']
    assert index['scale_factor'] == 0.18215 and index['latent_shape'] == [4, 4, 4]
    assert [shard['num_samples'] for shard in index['shards']] == [3, 3, 2, 3, 2, 3, 1]
    made = index['provenance']
    assert [entry['path'] for entry in made['corrupt']] == CORRUPT
    assert made['source']['num_images'] == NUM_GOOD + len(CORRUPT)
    assert made['image_size'] == [SIZE, SIZE] and made['pipeline'][1]['size'] == SIZE
    assert len(made['autoencoder']['weights_sha256']) == 64


def test_other_settings_are_refused(runs, config, tmp_path):
    folder = shutil.copytree(runs / 'killed', tmp_path / 'killed')
    for change, key in [
        (['--dtype', 'fp32'], 'Got dtype "fp32"; expected dtype "bf16"'),
        (['--no-flip'], 'Got flipped false; expected flipped true'),
        (['--cfg-options', 'extract.batch_size=4'], 'Got batch_size 4; expected batch_size 2'),
        (['--cfg-options', 'extract.dataset.pipeline.1.size=40'], '"size": 40'),
    ]:
        with pytest.raises(ValueError, match=key):
            load_tool().main([*arguments(config, folder), *change])
    os.remove(folder / 'extraction.json')
    with pytest.raises(ValueError, match='not of this command'):
        load_tool().main(arguments(config, folder))


def test_a_damaged_shard_is_made_again(runs, config, tmp_path):
    """And what a killed writer left is removed."""
    folder = shutil.copytree(runs / 'whole', tmp_path / 'whole')
    (folder / 'shard-00002.safetensors').unlink()
    (folder / f'.shard-00002.safetensors.{"0f" * 16}.part').write_bytes(b'half')
    load_tool().main(arguments(config, folder))
    assert contents(folder) == contents(runs / 'whole')


def test_too_many_corrupt_images_at_the_end(runs, tmp_path):
    folder = shutil.copytree(runs / 'whole', tmp_path / 'whole')
    settings = json.loads((folder / 'extraction.json').read_text())
    (folder / 'index.json').unlink()
    with pytest.raises(ValueError, match='got 3 corrupt images of 20, expected at most 10.00%'):
        extraction.finish(folder, settings, max_corrupt_share=0.1)
    assert not (folder / 'index.json').exists()
    assert extraction.finish(folder, settings, max_corrupt_share=0.15)
    assert contents(folder) == contents(runs / 'whole')


class Source:
    """Six images, some corrupt, without files."""

    metainfo = {'classes': ('only',)}

    def __init__(self, corrupt=()):
        self.corrupt = corrupt

    def __len__(self):
        return 6

    def digest(self):
        return 'six'

    def read(self, index):
        if index in self.corrupt:
            return {'corrupt': {'path': str(index), 'reason': 'so'}}
        return {'inputs': torch.full((3, 4, 4), float(index)), 'label': 0}


class Identity:
    """Encoder whose mean is the image."""

    scale_factor = 1.0
    downsampling = 1

    def __init__(self, factor=1.0):
        self.factor = factor

    def digest(self):
        return 'identity'

    def encode(self, images):
        return images * self.factor, torch.zeros_like(images)


def run(folder, source, encoder, **options):
    settings = extraction.make_settings(
        source, encoder, pipeline=[], name='x', shard_size=2, batch_size=2, **options
    )
    return extraction.extract(source, encoder, folder, settings)


def test_a_shard_without_good_images(tmp_path):
    assert run(tmp_path, Source(corrupt=(2, 3, 5)), Identity(), flipped=False)
    dataset = LatentDataset(tmp_path)
    assert [item['inputs'][0, 0, 0].item() for item in map(dataset.__getitem__, range(3))] == [
        0,
        1,
        4,
    ]
    assert [shard['file'] for shard in read_index(tmp_path)['shards']] == [
        'shard-00000.safetensors',
        'shard-00002.safetensors',
    ]


def test_latents_that_overflow_are_refused(tmp_path):
    with pytest.raises(ValueError, match='not finite'):
        run(tmp_path, Source(), Identity(factor=float('inf')))


def test_random_transforms_and_wrong_numbers_are_refused():
    make = extraction.make_settings
    with pytest.raises(ValueError, match='got RandomFlip in the pipeline'):
        make(Source(), Identity(), pipeline=[dict(type='RandomFlip')], name='x')
    with pytest.raises(ValueError, match="dtype='fp16'"):
        make(Source(), Identity(), pipeline=[], name='x', dtype='fp16')
    with pytest.raises(ValueError, match='shard_size=0'):
        make(Source(), Identity(), pipeline=[], name='x', shard_size=0)


def test_command_errors(tmp_path, monkeypatch, config):
    tool = load_tool()
    empty = tmp_path / 'empty.py'
    empty.write_text('x = 1\n')
    with pytest.raises(ValueError, match='has no `extract`'):
        tool.main(arguments(empty, tmp_path / 'out'))
    with pytest.raises(ValueError, match=r"unknown keys \['bach_size'\]"):
        tool.main([*arguments(config, tmp_path / 'out'), '--cfg-options', 'extract.bach_size=3'])
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        tool.main([*arguments(config, tmp_path / 'out'), '--vae', str(tmp_path / 'vae')])
    with pytest.raises(ValueError, match='RANK is not set. Start with torchrun'):
        monkeypatch.delenv('RANK', raising=False)
        tool.main([*arguments(config, tmp_path / 'out'), '--launcher', 'pytorch'])
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='expected --launcher pytorch'):
        tool.main(arguments(config, tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()

"""Latents on disk and the data sets that read them."""

import gc
import importlib.util
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from mmsparsedit.datasets import LatentDataset, latent_format
from mmsparsedit.datasets.latent_format import (
    read_index,
    save_shard,
    tensor_names,
    verify_folder,
    write_index,
)
from mmsparsedit.registry import DATASETS

TOOLS = Path(__file__).parents[2] / 'tools' / 'dataset_converters'
COUNTS = (5, 1, 7)
SHAPE = (4, 6, 8)


def tool(name):
    """The module of a command."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, kind='moments', dtype=torch.bfloat16, flipped=True, labels=None, scale=0.18215):
    """Random latents in three shards; returns the items that must come back, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    items, shards = [], []
    for number, count in enumerate(COUNTS):
        tensors = {'label': torch.arange(count) + 10 * number if labels is None else labels[number]}
        names = [tensor_names(kind, flip) for flip in range(1 + flipped)]
        for name in sum(names, []):
            tensors[name] = torch.randn(count, *SHAPE).to(dtype)
        shards.append(save_shard(folder, number, tensors))
        for row in range(count):
            for group in names:
                inputs = torch.cat([tensors[name][row] for name in group]).float()
                items.append((inputs, int(tensors['label'][row])))
    write_index(
        folder,
        shards=shards,
        latent_shape=SHAPE,
        dtype='bf16' if dtype == torch.bfloat16 else 'fp32',
        kind=kind,
        flipped=flipped,
        scale_factor=scale,
        classes=['cat', 'dog'],
        provenance={'encoder': 'none'},
    )
    return items


@pytest.mark.parametrize('kind', ['moments', 'sample'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('flipped', [True, False])
def test_items_are_what_was_written(tmp_path, kind, dtype, flipped):
    items = write(tmp_path, kind, dtype, flipped)
    dataset = DATASETS.build(
        dict(type='LatentDataset', data_root=str(tmp_path), latent_shape=SHAPE, num_classes=27)
    )
    assert len(dataset) == len(items) == sum(COUNTS) * (1 + flipped)
    assert dataset.metainfo == dict(
        latent_shape=SHAPE, scale_factor=0.18215, kind=kind, classes=('cat', 'dog')
    )
    for index, (inputs, label) in enumerate(items):
        item = dataset[index]
        assert torch.equal(item['inputs'], inputs) and item['label'] == label
        assert item['inputs'].dtype == torch.float32
    order = torch.randperm(len(items)).tolist()
    for got, index in zip(dataset.__getitems__(order), order, strict=True):
        assert torch.equal(got['inputs'], items[index][0]) and got['label'] == items[index][1]
    assert torch.equal(dataset[-1]['inputs'], items[-1][0])
    with pytest.raises(IndexError, match=f'has {len(items)} items'):
        dataset[len(items)]


def test_flip_can_be_left_out_and_demanded(tmp_path):
    items = write(tmp_path / 'both')
    plain = LatentDataset(tmp_path / 'both', flip=False)
    assert len(plain) == sum(COUNTS)
    assert torch.equal(plain[3]['inputs'], items[6][0])
    write(tmp_path / 'one', flipped=False)
    with pytest.raises(ValueError, match='no flipped copies'):
        LatentDataset(tmp_path / 'one', flip=True)


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_data_loader_workers_and_pickling(tmp_path, method):
    items = write(tmp_path)
    dataset = LatentDataset(tmp_path)
    dataset[0]  # open files must not travel to the workers
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy._files) == 0 and torch.equal(copy[5]['inputs'], items[5][0])
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        collate_fn=default_collate,
        multiprocessing_context=method,
    )
    batches = list(loader)
    got = torch.cat([batch['inputs'] for batch in batches])
    assert torch.equal(got, torch.stack([inputs for inputs, _ in items]))
    labels = torch.cat([batch['label'] for batch in batches])
    assert labels.tolist() == [label for _, label in items]


def test_few_open_files_suffice(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_format, 'MAX_OPEN_SHARDS', 1)
    items = write(tmp_path)
    dataset = LatentDataset(tmp_path)
    for index in np.random.default_rng(0).integers(0, len(items), 40):
        assert torch.equal(dataset[int(index)]['inputs'], items[index][0])
        assert len(dataset._files) == 1


def private_memory():
    """Memory of this process that is no mapped file, in KiB."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'RssAnon:\s+(\d+) kB', status).group(1))


def test_memory_is_flat_and_batches_do_not_pile_up(tmp_path):
    toy = tool('make_toy_latents')
    toy.main(['--random', '2048', '--latent-size', '32', '--out', str(tmp_path / 'toy')])
    dataset = LatentDataset(tmp_path / 'toy', latent_shape=(4, 32, 32), num_classes=1000)

    def epoch(seed):
        order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
        for start in range(0, len(order), 256):
            default_collate(dataset.__getitems__(order[start : start + 256]))
        gc.collect()
        return private_memory()

    after_first = epoch(0)
    after_tenth = [epoch(seed) for seed in range(1, 10)][-1]
    # 2048 x 2 items of 32 KiB: an epoch that stayed in memory would add 131 072 KiB
    assert after_tenth - after_first < 20_000


def test_missing_and_unfinished_folders(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        LatentDataset(tmp_path / 'none')
    text = str(caught.value)
    assert f"no folder of latents '{tmp_path / 'none'}'" in text
    assert f'extract_latents.py CONFIG --out {tmp_path / "none"}' in text
    assert 'make_toy_latents.py --random' in text
    with pytest.raises(FileNotFoundError, match='holds no latents'):
        LatentDataset(tmp_path)
    write(tmp_path)
    (tmp_path / 'index.json').unlink()
    with pytest.raises(FileNotFoundError, match='is unfinished'):
        LatentDataset(tmp_path)


def test_wrong_expectations(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match=r'shape \(4, 6, 8\), expected \(4, 32, 32\)'):
        LatentDataset(tmp_path, latent_shape=[4, 32, 32])
    with pytest.raises(ValueError, match='labels from 0 to 26, expected 0 to 9.*at least 27'):
        LatentDataset(tmp_path, num_classes=10)
    with pytest.raises(ValueError, match='scale factor 0.18215, expected 0.13025'):
        LatentDataset(tmp_path, scale_factor=0.13025)
    write(tmp_path, labels=[torch.full((count,), -1) for count in COUNTS])
    with pytest.raises(ValueError, match='labels from -1 to -1'):
        LatentDataset(tmp_path)


def test_damage_is_named(tmp_path):
    write(tmp_path)
    shard = tmp_path / 'shard-00001.safetensors'
    whole = shard.read_bytes()
    assert verify_folder(tmp_path) == []

    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f'got {len(whole) - 1} bytes, expected {len(whole)}'):
        LatentDataset(tmp_path)
    shard.write_bytes(b'no shard at all')
    with pytest.raises(ValueError, match='is no safetensors file'):
        LatentDataset(tmp_path)
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    LatentDataset(tmp_path)  # a flipped bit is found by the checksum only
    (problem,) = verify_folder(tmp_path)
    assert problem.startswith('shard-00001.safetensors: sha256 is')
    shard.unlink()
    assert verify_folder(tmp_path) == ['shard-00001.safetensors: missing']
    with pytest.raises(FileNotFoundError, match='missing'):
        LatentDataset(tmp_path)


@pytest.mark.parametrize(
    'change, text',
    [
        ({'version': 2}, "expected format 'mmsparsedit-latents', version 1"),
        ({'format': 'other'}, 'FastDiTFeatures'),
        ({'dtype': 'fp8'}, "dtype 'fp8'"),
        ({'dtype': 'fp32'}, 'mixes two extractions'),
        ({'latent_shape': [4, 8, 6]}, 'mixes two extractions'),
    ],
)
def test_index_that_does_not_fit(tmp_path, change, text):
    write(tmp_path)
    index = read_index(tmp_path)
    (tmp_path / 'index.json').write_text(json.dumps({**index, **change}))
    with pytest.raises(ValueError, match=text):
        LatentDataset(tmp_path)
    (tmp_path / 'index.json').write_text('{')
    with pytest.raises(ValueError, match='is no JSON file'):
        LatentDataset(tmp_path)


def test_verify_command(tmp_path, capsys):
    write(tmp_path)
    verify = tool('verify_latents')
    assert verify.main([str(tmp_path)]) == 0
    assert '13 samples in 3 shards, all checksums match' in capsys.readouterr().out
    (tmp_path / 'shard-00002.safetensors').write_bytes(b'')
    assert verify.main([str(tmp_path)]) == 1


def test_toy_latents_from_random_numbers(tmp_path):
    toy = tool('make_toy_latents')
    common = ['--latent-size', '8', '--num-classes', '3', '--dtype', 'fp32', '--out']
    toy.main(['--random', '10', '--shard-size', '4', *common, str(tmp_path / 'a')])
    toy.main(['--random', '10', '--shard-size', '10', *common, str(tmp_path / 'b')])
    a, b = LatentDataset(tmp_path / 'a', (4, 8, 8), 3), LatentDataset(tmp_path / 'b')
    assert len(a) == 20 and a.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    for i in range(20):
        assert torch.equal(a[i]['inputs'], b[i]['inputs'])
    assert torch.equal(a[5]['inputs'], a[4]['inputs'].flip(-1))
    scaled = torch.stack([a[i]['inputs'][:4] for i in range(20)]) * a.metainfo['scale_factor']
    assert abs(scaled.std() - 1) < 0.05
    with pytest.raises(ValueError, match='holds latents already'):
        toy.main(['--random', '10', *common, str(tmp_path / 'a')])


def test_toy_latents_from_photographs(tmp_path, photographs):
    toy = tool('make_toy_latents')
    out = tmp_path / 'toy'
    toy.main(['--images', str(photographs), '--latent-size', '8', '--out', str(out)])
    dataset = LatentDataset(out, latent_shape=(4, 8, 8), num_classes=4, flip=False)
    assert len(dataset) == 17
    assert dataset.metainfo['classes'] == ('animals', 'objects', 'people', 'textures')
    provenance = read_index(out)['provenance']
    assert 'no VAE' in provenance['encoder'] and len(provenance['corrupt']) == 3
    colours = dataset[0]['inputs'][:4] * dataset.metainfo['scale_factor']
    luminance = torch.tensor([0.299, 0.587, 0.114]) @ colours[:3].flatten(1)
    torch.testing.assert_close(colours[3].flatten(), luminance, rtol=0, atol=0.02)  # bf16

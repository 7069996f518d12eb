"""Finished samples are kept, made once, never mixed, and give the numbers of live samples."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.evaluation.recipe import build_recipe, write_result
from mmsparsedit.evaluation.store import SampleStore
from mmsparsedit.utils import files

from eval_helpers import TinyExtractor, as_samples, random_images

DESCRIPTION = {'config': 'abc', 'steps': 250, 'guidance': 1.5}


def metric(folder):
    if not (folder / 'reference.npz').is_file():
        np.savez(folder / 'reference.npz', random_images(40))
    return ADMMetrics(
        folder / 'reference.npz', extractor=TinyExtractor(), cache_dir=folder / 'c', device='cpu'
    )


def test_samples_come_back_as_they_were(tmp_path):
    store = SampleStore(tmp_path / 'store', DESCRIPTION)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    samples = [
        {'image': draw(3, 5, 7), 'index': 0, 'label': 3, 'seed': 10**12},
        {'image': draw(1, 6, 6), 'index': 1, 'label': torch.tensor(4)},
        {'video': draw(4, 3, 6, 8), 'index': 1_234_567, 'prompt': 'a "cat"'},
        {'video': draw(1, 1, 6, 8), 'index': 3},
    ]
    store.add(samples)
    assert store.indices() == [0, 1, 3, 1_234_567] and len(store) == 4
    assert 3 in store and 2 not in store
    for sample in samples:
        found = store.read(sample['index'])
        assert found.keys() == sample.keys()
        for key, value in sample.items():
            same = torch.equal(found[key], value) if key in ('image', 'video') else None
            assert same or found[key] == value
    assert store.missing(5) == [2, 4]


def test_another_description_is_refused(tmp_path):
    SampleStore(tmp_path / 'store', DESCRIPTION)
    SampleStore(tmp_path / 'store', dict(reversed(DESCRIPTION.items())))
    with pytest.raises(ValueError, match='steps: 250 there, 50 now'):
        SampleStore(tmp_path / 'store', {**DESCRIPTION, 'steps': 50})
    assert SampleStore(tmp_path / 'store').description == DESCRIPTION
    with pytest.raises(FileNotFoundError, match='expected a folder with store.json'):
        SampleStore(tmp_path / 'nothing')
    (tmp_path / 'foreign').mkdir()
    (tmp_path / 'foreign' / '000000.png').write_bytes(b'')
    with pytest.raises(ValueError, match='with images and without store.json'):
        SampleStore(tmp_path / 'foreign', DESCRIPTION)


def test_an_opened_store_is_free_of_what_killed_writers_left(tmp_path):
    SampleStore(tmp_path, DESCRIPTION)
    (tmp_path / f'.000003.png.{"0f" * 16}.part').write_bytes(b'half')
    SampleStore(tmp_path, DESCRIPTION)
    assert os.listdir(tmp_path) == ['store.json']


def test_damaged_and_missing_samples_are_named(tmp_path):
    store = SampleStore(tmp_path / 'store', DESCRIPTION)
    store.add(as_samples(random_images(3)))
    path = tmp_path / 'store' / '000001.png'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match='000001.png, expected a finished sample: it is damaged'):
        list(store.samples())
    path.unlink()
    with pytest.raises(FileNotFoundError, match='got no sample 1'):
        store.read(1)
    with pytest.raises(ValueError, match='got 2 samples in .*, expected 3: the first'):
        store.evaluate(Evaluator([metric(tmp_path)]), 3, 2)
    with pytest.raises(ValueError, match='got image of shape'):
        store.add([{'image': torch.zeros(3, 4, 4), 'index': 0}])


def test_metrics_over_a_store_equal_those_of_live_samples(tmp_path):
    samples = as_samples(random_images(30, seed=1, high=210))
    live = Evaluator([metric(tmp_path)])
    for start in range(0, 30, 8):
        live.process(samples[start : start + 8])
    store = SampleStore(tmp_path / 'store', DESCRIPTION)
    store.add([BaseDataElement(**sample) for sample in samples[::-1]])
    assert store.evaluate(Evaluator([metric(tmp_path)]), 30, 8) == live.evaluate(30)


def test_export_in_adms_format(tmp_path):
    images = random_images(7)
    store = SampleStore(tmp_path / 'store', DESCRIPTION)
    store.add(as_samples(images)[::-1])
    store.export_npz(tmp_path / 'out.npz')
    with np.load(tmp_path / 'out.npz', allow_pickle=False) as file:
        assert list(file) == ['arr_0', 'arr_1']
        assert file['arr_0'].dtype == np.uint8 and np.array_equal(file['arr_0'], images)
        assert file['arr_1'].tolist() == [index % 10 for index in range(7)]
    store.export_npz(tmp_path / 'five.npz', 5)
    assert np.load(tmp_path / 'five.npz')['arr_0'].shape == (5, 8, 8, 3)
    with pytest.raises(ValueError, match='got 7 samples in .*, expected 9'):
        store.export_npz(tmp_path / 'nine.npz', 9)
    assert not (tmp_path / 'nine.npz').exists()


def test_export_repeats_grey_to_three_channels(tmp_path):
    store = SampleStore(tmp_path / 'store', DESCRIPTION)
    grey = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    store.add([{'image': grey, 'index': 0}])
    store.export_npz(tmp_path / 'out.npz')
    with np.load(tmp_path / 'out.npz') as file:
        assert list(file) == ['arr_0']
        assert np.array_equal(file['arr_0'], grey.permute(1, 2, 0).expand(4, 4, 3).numpy()[None])


def sampling(folder, stop, pipe):
    """Make 40 samples, six at a time; killed before sample ``stop`` is put in place."""
    store = SampleStore(folder, {'config': 'digits', 'steps': 20})
    replace, placed = os.replace, []

    def until(source, target):
        # killed with a sample written beside its place, as in a real kill
        if len(placed) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        placed.append(target)
        replace(source, target)

    files.os.replace = until
    made = store.missing(40)
    for start in range(0, len(made), 6):
        batch = []
        for index in made[start : start + 6]:
            generator = torch.Generator().manual_seed(1000 + index)
            image = torch.randint(0, 220, (3, 8, 8), generator=generator, dtype=torch.uint8)
            batch.append({'image': image, 'index': index, 'label': index % 10})
        store.add(batch)
    pipe.send(made)


def sample(folder, stop=10**6):
    """Exit code of ``sampling`` in a process of its own, and the indexes that it made."""
    context = multiprocessing.get_context('fork')
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=sampling, args=(folder, stop, send))
    process.start()
    process.join(120)
    return process.exitcode, receive.recv() if receive.poll() else None


def result(store_folder, folder, name):
    store = SampleStore(store_folder)
    evaluator = Evaluator([metric(folder)])
    numbers = store.evaluate(evaluator, 40, 16)
    recipe = build_recipe(sampling=store.description, metrics=evaluator.metrics)
    write_result(folder / name, numbers, recipe)
    return (folder / name).read_bytes()


def test_killed_and_resumed_sampling_gives_the_same_json(tmp_path):
    assert sample(tmp_path / 'whole') == (0, list(range(40)))
    assert sample(tmp_path / 'killed', stop=21) == (-signal.SIGKILL, None)
    kept = SampleStore(tmp_path / 'killed')
    done = kept.indices()
    # the writers of a batch of six may each be at one, of which one was put in place or none
    assert 18 <= len(done) <= 24 and set(done) >= set(range(18)) and max(done) < 24
    times = {index: (kept.folder / f'{index:06d}.png').stat().st_mtime_ns for index in done}
    left = [index for index in range(40) if index not in done]
    assert sample(tmp_path / 'killed') == (0, left)  # nothing is made twice
    for index, time in times.items():
        assert (kept.folder / f'{index:06d}.png').stat().st_mtime_ns == time
    expected = result(tmp_path / 'whole', tmp_path, 'whole.json')
    assert result(tmp_path / 'killed', tmp_path, 'killed.json') == expected
    assert set(json.loads(expected)['metrics']) >= {'adm/fid', 'adm/is', 'adm/recall'}

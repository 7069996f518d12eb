"""Every statistic and the whole metric under 1, 2 and 3 processes and several batch sizes."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmsparsedit.evaluation.distributed import gather_rows
from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.evaluation.statistics import FeatureStatistics, InceptionScore

from eval_helpers import TinyExtractor, as_samples, random_images
from processes import server

COUNT, SPLIT = 61, 20


def features():
    return 3 * np.random.default_rng(0).standard_normal((COUNT, 6)) + 100


def compute(folder, rank, world, batch_size, skip_last=False):
    """All numbers of one process; with ``skip_last`` the last process gets no sample at all."""
    share = range(rank, COUNT, world)
    if skip_last:
        share = range(rank, COUNT, world - 1) if rank < world - 1 else range(0)
    rows = features()
    moments, score = FeatureStatistics(), InceptionScore(SPLIT)
    for start in range(0, len(share), batch_size):
        part = list(share[start : start + batch_size])
        moments.update(rows[part])
        score.update(rows[part], part)
    moments.all_reduce()
    score.all_reduce()
    gathered = gather_rows(torch.from_numpy(rows[list(share)]), rows_at_once=7)
    metric = ADMMetrics(
        f'{folder}/reference.npz',
        extractor=TinyExtractor(),
        num_samples=COUNT,
        cache_dir=f'{folder}/cache',
        device='cpu',
    )
    samples = as_samples(random_images(COUNT, seed=1, high=200))
    for start in range(0, len(share), batch_size):
        metric.process(None, [samples[index] for index in share[start : start + batch_size]])
    return {
        'count': moments.count,
        'mean': moments.mean.tolist(),
        'covariance': moments.covariance.tolist(),
        'score': score.compute(),
        'gathered': None if gathered is None else sorted(gathered[:, 0].tolist()),
        'metric': metric.evaluate(len(share)),
    }


def refusal(folder, rank, world):
    """The text of the error when every sample is given twice; every process must see it."""
    metric = ADMMetrics(f'{folder}/reference.npz', extractor=TinyExtractor(), device='cpu')
    metric.process(None, as_samples(random_images(5)))
    try:
        metric.evaluate(5)
    except ValueError as error:
        return str(error)
    return None


def worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=world
    )
    result = {
        'even': compute(folder, rank, world, batch_size=4),
        'idle': compute(folder, rank, world, batch_size=9, skip_last=True),
        'refusal': refusal(folder, rank, world),
    }
    with open(f'{folder}/{world}_{rank}.json', 'w') as file:
        json.dump(result, file)
    dist.destroy_process_group()


def assert_close(found, expected):
    """Equal to 1e-9, relative or absolute."""
    for key in ('mean', 'covariance', 'score'):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-9, atol=1e-9)
    assert found['count'] == expected['count']
    assert found['metric'].keys() == expected['metric'].keys()
    for key, value in expected['metric'].items():
        assert found['metric'][key] == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.fixture
def reference(tmp_path):
    np.savez(tmp_path / 'reference.npz', arr_0=random_images(40, seed=0))
    return tmp_path


def test_one_process_in_any_batch_size(reference):
    expected = compute(reference, 0, 1, COUNT)
    np.testing.assert_allclose(expected['covariance'], np.cov(features(), rowvar=False), rtol=1e-9)
    assert set(expected['metric']) == {
        f'adm/{m}' for m in ('fid', 'sfid', 'is', 'precision', 'recall')
    }
    for batch_size in (1, 7):
        assert_close(compute(reference, 0, 1, batch_size), expected)


@pytest.mark.parametrize('world', [2, 3])
def test_several_processes(reference, world):
    expected = compute(reference, 0, 1, COUNT)
    server()
    mp.start_processes(worker, (world, str(reference)), nprocs=world, start_method='forkserver')
    for rank in range(world):
        found = json.loads((reference / f'{world}_{rank}.json').read_text())
        assert_close(found['even'], expected)
        assert_close(found['idle'], expected)
        assert (found['even']['gathered'] == expected['gathered']) == (rank == 0)
        assert 'a second time' in found['refusal']

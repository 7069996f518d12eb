"""The tokens of one sample on two processes: the numbers of one process, and what is exchanged."""

import os
import signal

import pytest
import torch
import torch.distributed as dist

from mmsparsedit.models.acceleration import Acceleration
from mmsparsedit.models.token_parallel import CountedRanks, TokenParallel, received_numbers
from mmsparsedit.registry import MODELS

from accelerated import IMAGE, NETWORKS, at_each_stage, build, error, sampled

SPATIAL_FIRST = {
    **NETWORKS['latte'],
    'num_top': 2,
    'sdtm': dict(type='FactorisedSDTM', num_sparse=2, recover_order='spatial_first'),
}
DENSE = {**NETWORKS['dit'], 'num_bottom': 0, 'num_sdtm': 0, 'num_top': 2}
GENERATORS = {
    **{kind: dict(kind=kind) for kind in NETWORKS},
    'spatial first': dict(kind='latte', network=SPATIAL_FIRST),
    'dense': dict(network=DENSE, prune=None),
}


def outputs(generator):
    """At the first and the last stage; of a dense network a sample."""
    if generator.prune is None:
        return sampled(generator, 2)
    return torch.cat(at_each_stage(generator))


def compare(rank, folder):
    """Deviations of two processes from one, as both find them."""
    dist.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)
    found = {}
    for name, arguments in GENERATORS.items():
        sides = {} if 'prune' in arguments else dict(sides=(6, 3))
        generator = build(**arguments, **sides)
        expected = outputs(generator)
        generator.accelerate(token_parallel=True)
        found[name] = error(outputs(generator), expected)
    generator.accelerate(token_parallel=True, compile=dict(backend='eager'))
    found['compiled'] = error(outputs(generator), expected)
    generator.accelerate(dtype='bfloat16')
    expected = outputs(generator)
    generator.accelerate(token_parallel=True, dtype='bfloat16')
    found['bf16'] = error(outputs(generator), expected)
    try:
        generator.sample([rank, 1], label=torch.tensor([3, 4]))
    except ValueError as refused:
        found['different requests'] = str(refused)
    torch.save(found, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow(6)
def test_two_processes_give_the_numbers_of_one(tmp_path):
    child = os.fork()
    if not child:
        try:
            compare(1, tmp_path)
        finally:
            os._exit(0)
    try:
        compare(0, tmp_path)
        os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pt')
        assert 'given different ones' in found.pop('different requests')
        assert found.pop('bf16') < 1e-2
        assert max(found.values()) < 1e-5 and len(found) == len(GENERATORS) + 1


def test_what_is_exchanged():
    """Keys and values of a dense layer, M (C + 2 H) of a generation, M C of a pooling."""
    N, C, H, M, world = 64, 32, 2, 16, 4
    data = 8 * 8 * 2  # eps and variance of one channel
    dense = MODELS.build(DENSE)
    assert received_numbers(dense, world) == (world - 1) / world * (2 * 2 * N * C + data)
    sparse = MODELS.build(NETWORKS['dit'])  # one layer of each kind; no dense layer in the SDTM
    ring = 2 * (world - 1) / world
    exchanged = ring * (C + M * C + M * (C + 2 * H)) + (world - 1) / world * (2 * N * C + data)
    assert received_numbers(sparse, world, (4, 4)) == pytest.approx(exchanged)


def test_what_cannot_be_split_is_named():
    network = MODELS.build(dict(type='SparseDiT', num_classes=10, **{**IMAGE, 'input_size': 6}))
    with pytest.raises(ValueError, match=r'6 rows of tokens .* on 4 processes.*e.g. 2'):
        TokenParallel(network, CountedRanks(4))
    with pytest.raises(ValueError, match='runs at the size it was built for'):
        TokenParallel(network, CountedRanks(2))(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match='leave cache_interval, method, merge and cuda_graphs out'):
        Acceleration(token_parallel=True, cache_interval=2)

"""Several processes: replicas, sharded networks (FSDP), and copies of those (HSDP)."""

import functools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from PIL import Image
from ranks import run_ranks

from mmsparsedit.apis import init_model
from mmsparsedit.apis.launch import load_config
from mmsparsedit.engine import DiffusionRunner, ReplicatedModel, sharding
from mmsparsedit.models import generators
from mmsparsedit.registry import MODELS

from latent_runs import ACCUMULATE, ONE_STAGE, curve, write_config
from runs import ROOT, SPARSE, TINY, train
from sharded_networks import NETWORKS

SHARDED_LAZY = """# The digits as a lazy config, sharded.
from mmengine.config import read_base

from mmsparsedit.engine import FullyShardedModel

with read_base():
    from .digits_lazy import *

model_wrapper_cfg = dict(type=FullyShardedModel)
"""
pytestmark = pytest.mark.slow(2)  # most of them read the runs of two processes
FSDP = 'model_wrapper_cfg.type=FullyShardedModel'
# digits with pictures and validation
WATCHED = (
    *TINY[:3],
    'param_scheduler=None',
    'model.sampler.num_steps=4',
    'default_hooks.sample_grid.interval=3',
    'default_hooks.sample_grid.num_samples=6',
    'default_hooks.logger.interval=1',
    'default_hooks.runtime_info.interval=1',
    'default_hooks.throughput=None',
    'log_processor.window_size=1',
    'train_cfg.val_interval=4',
    'val_dataloader.dataset.num_samples=20',
    'val_dataloader.batch_size=5',
)


def write_teacher(folder):
    """Random weights of the dense model that the sparse one of ``folder`` continues."""
    network = load_config(str(folder / 'config.py')).model.network
    depth = MODELS.build(network).depth
    torch.manual_seed(2)
    dense = MODELS.build({**network, 'num_bottom': 0, 'num_sdtm': 0, 'num_top': depth})
    torch.save({key: value + 0.05 for key, value in dense.state_dict().items()}, folder / 't.pth')
    return folder / 't.pth'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding')
    shutil.copytree(ROOT / 'configs', root / 'configs')
    (root / 'configs/sparsedit/sharded_lazy.py').write_text(SHARDED_LAZY)
    write_config(root)
    return root


def training(folder, name, *options, **more):
    """A job of ``sharding_ranks.py``."""
    run = dict(work_dir=str(folder / name), iterations=8, options=options)
    return {**run, 'config': str(folder / 'config.py'), **more}


def run_jobs(folder, world, trainings, **differences):
    """What the jobs of ``world`` gloo processes found; trainings write folders of ``folder``."""
    place = folder / f'world{world}'
    place.mkdir()
    jobs = dict(trainings=trainings, differences=differences)
    listed = place / 'jobs.json'
    listed.write_text(json.dumps(jobs))
    codes, texts = run_ranks('tests/sharding_ranks.py', listed, folder=place, world=world)
    assert codes == [0] * world, texts
    return json.loads((place / 'differences.json').read_text())


@pytest.fixture(scope='module')
def two(folder):
    """Runs of two gloo processes, batch 8 each, as folders of ``folder``."""
    job = functools.partial(training, folder)
    middle = 'iter_4.pth'
    teacher = f'model.distillation.teacher={write_teacher(folder)}'
    jobs = [
        job('ddp', 'optim_wrapper.optimizer.fused=True'),
        job('fsdp', 'optim_wrapper.optimizer.fused=True', FSDP),
        job('ddp_then_fsdp', FSDP, resume=str(folder / 'ddp' / middle)),
        job('fsdp_then_ddp', resume=str(folder / 'fsdp' / middle)),
        job('fsdp_then_fsdp', FSDP, resume=str(folder / 'fsdp' / middle)),
        job('ddp_one_stage', *ONE_STAGE),
        job('ddp_tuned', ACCUMULATE, f'load_from={folder / "ddp" / middle}'),
        job(
            'fsdp_tuned',
            ACCUMULATE,
            f'load_from={folder / "ddp" / middle}',
            FSDP,
            'recompute_layers=True',
        ),
        job('ddp_distilled', ACCUMULATE, teacher),
        job('fsdp_distilled', ACCUMULATE, teacher, FSDP, 'recompute_layers=True'),
        job('ddp_watched', *WATCHED, config=SPARSE),
        job('fsdp_watched', *WATCHED, config=str(folder / 'configs/sparsedit/sharded_lazy.py')),
    ]
    dit = dict(kind='SparseDiT')
    run_jobs(
        folder,
        2,
        jobs,
        **{kind: [dict(kind=kind, recompute=again) for again in (False, True)]
           for kind in NETWORKS},
        bf16=[dict(dit, recompute=again, weight_dtype='bfloat16') for again in (False, True)],
        copies=[dict(dit, shard_size=size) for size in (1, 2)],
    )  # fmt: skip
    return folder


@pytest.fixture(scope='module')
def four(folder):
    """Gradients of four gloo processes: two copies of the weights, each shared by two (HSDP)."""
    job = functools.partial(training, folder)
    half, hybrid = 'train_dataloader.batch_size=4', (FSDP, 'model_wrapper_cfg.shard_size=2')
    jobs = [
        job('ddp4', half),
        job('hsdp', half, *hybrid, 'recompute_layers=True'),
        job('hsdp_then_ddp', half, resume=str(folder / 'hsdp' / 'iter_4.pth')),
        job('ddp_then_hsdp', half, *hybrid, resume=str(folder / 'ddp4' / 'iter_4.pth')),
    ]
    cases = {kind: [dict(kind=kind, shard_size=2)] for kind in NETWORKS}
    return run_jobs(folder, 4, jobs, **cases)


def assert_same_curve(a, b, rel):
    a, b = curve(a), curve(b)
    assert a.keys() == b.keys() and len(a) == 8
    assert list(a.values()) == pytest.approx(list(b.values()), rel=rel)


def assert_same_checkpoint(a, b, atol=2e-5):
    a, b = (torch.load(f / 'iter_8.pth', weights_only=True) for f in (a, b))
    for part in ('state_dict', 'ema_state_dict'):
        assert a[part].keys() == b[part].keys()
        for key in a[part]:
            torch.testing.assert_close(a[part][key], b[part][key], rtol=0, atol=atol, msg=key)
    a, b = a['optimizer']['state'], b['optimizer']['state']
    assert a.keys() == b.keys()
    for i in a:
        torch.testing.assert_close(a[i], b[i], rtol=1e-3, atol=atol)


def test_two_processes_are_one_with_the_same_global_batch(two):
    """One stage, so that all processes of an iteration work on one grid."""
    options = ('train_dataloader.batch_size=16', *ONE_STAGE)
    train(two / 'one', 8, *options, config=two / 'config.py', tiny=False)
    assert_same_curve(two / 'one', two / 'ddp_one_stage', rel=2e-5)
    assert_same_checkpoint(two / 'one', two / 'ddp_one_stage', atol=1e-4)


def test_two_processes_average_their_stages(two, monkeypatch):
    """Four stages: each process has its own; their mean is what one process computes in turn."""
    loss = generators.DiffusionGenerator.loss
    grids = []

    def of_both(self, inputs, label):
        parts = []
        for rank in range(2):
            monkeypatch.setattr(generators, 'get_dist_info', lambda rank=rank: (rank, 2))
            parts.append(loss(self, inputs[rank::2], label=label[rank::2]))
        hub = MessageHub.get_current_instance()
        grids.append(self.training_grid(hub.get_info('seed'), hub.get_info('iter')))
        return {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}

    monkeypatch.setattr(generators.DiffusionGenerator, 'loss', of_both)
    batch = 'train_dataloader.batch_size=16'
    train(two / 'in_turn', 8, batch, config=two / 'config.py', tiny=False)
    assert len(set(grids)) > 1
    assert_same_curve(two / 'in_turn', two / 'ddp', rel=2e-5)


def test_a_sharded_network_trains_alike(two):
    assert_same_curve(two / 'ddp', two / 'fsdp', rel=1e-6)
    assert curve(two / 'ddp', 'grad_norm') == pytest.approx(
        curve(two / 'fsdp', 'grad_norm'), rel=1e-5
    )
    assert_same_checkpoint(two / 'ddp', two / 'fsdp')


@pytest.mark.parametrize('run', ['ddp_then_fsdp', 'fsdp_then_ddp', 'fsdp_then_fsdp'])
def test_any_checkpoint_is_resumed_sharded_or_not(two, run):
    resumed = curve(two / run)
    assert sorted(resumed) == [5, 6, 7, 8]
    whole = curve(two / 'ddp')
    assert resumed == pytest.approx({step: whole[step] for step in resumed}, rel=1e-5)
    assert_same_checkpoint(two / run, two / 'ddp')


def test_the_checkpoint_of_a_sharded_network_is_whole(two):
    checkpoint = torch.load(two / 'fsdp' / 'iter_8.pth', weights_only=True)
    generator = init_model(two / 'config.py', two / 'fsdp' / 'iter_8.pth')
    weights = generator.state_dict()
    assert weights.keys() == checkpoint['state_dict'].keys()
    for key, value in weights.items():
        assert torch.equal(value, checkpoint['state_dict'][key])
        raw = checkpoint['ema_state_dict'][f'module.{key}']
        assert raw.shape == value.shape
        assert key == 'network.pos_embed' or not torch.equal(raw, value), key


def test_sharded_fine_tuning_with_accumulation_and_recomputation(two):
    assert_same_curve(two / 'ddp_tuned', two / 'fsdp_tuned', rel=1e-5)
    assert_same_checkpoint(two / 'ddp_tuned', two / 'fsdp_tuned')
    assert curve(two / 'ddp_tuned')[1] != curve(two / 'ddp')[1]
    optimizer = torch.load(two / 'fsdp_tuned' / 'iter_8.pth', weights_only=True)['optimizer']
    assert optimizer['state'][0]['step'] == 4


def test_a_sharded_student_of_a_whole_teacher_is_the_replicated_one(two):
    assert_same_curve(two / 'ddp_distilled', two / 'fsdp_distilled', rel=1e-5)
    assert_same_checkpoint(two / 'ddp_distilled', two / 'fsdp_distilled')
    tokens = curve(two / 'fsdp_distilled', 'distill_tokens')
    assert len(tokens) == 8 and min(tokens.values()) > 0.1


def test_a_sharded_network_is_looked_at_and_validated_while_it_trains(two):
    whole, sharded = two / 'ddp_watched', two / 'fsdp_watched'
    for name in ('iter_3.png', 'iter_6.png'):
        a, b = (np.asarray(Image.open(f / 'samples' / name), dtype=int) for f in (whole, sharded))
        assert a.std() > 20 and abs(a - b).max() <= 1
    a, b = (json.loads((f / 'metrics.json').read_text())['metrics'] for f in (whole, sharded))
    assert a == pytest.approx(b, rel=1e-3)
    # the averages swapped in for it are out again
    assert_same_curve(whole, sharded, rel=1e-5)
    assert_same_checkpoint(whole, sharded)


def test_every_kind_of_network_is_sharded_exactly(two):
    found = json.loads((two / 'world2' / 'differences.json').read_text())
    assert set(found) == {'SparseDiT', 'SparseLatte', 'SparsePixArt', 'bf16', 'copies'}
    for kind, differences in found.items():  # bf16: against a whole network under autocast
        assert len(differences) == 2 and max(differences) < 1e-6, kind


def test_copies_of_a_sharded_network_train_alike(folder, four):
    """HSDP on four processes: a mesh of two copies, each of two halves."""
    assert set(four) == set(NETWORKS)
    for kind, differences in four.items():
        assert max(differences) < 1e-6, kind
    assert_same_curve(folder / 'ddp4', folder / 'hsdp', rel=1e-5)
    assert_same_checkpoint(folder / 'ddp4', folder / 'hsdp')


@pytest.mark.parametrize('run', ['hsdp_then_ddp', 'ddp_then_hsdp'])
def test_any_checkpoint_is_resumed_in_copies_or_not(folder, four, run):
    resumed, whole = curve(folder / run), curve(folder / 'ddp4')
    assert sorted(resumed) == [5, 6, 7, 8]
    assert resumed == pytest.approx({step: whole[step] for step in resumed}, rel=1e-5)
    assert_same_checkpoint(folder / run, folder / 'ddp4')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_lie_in_the_buckets_and_are_exchanged_in_their_precision(dtype):
    def weights():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))

    plain, inputs = weights(), torch.linspace(-1, 1, 20).view(5, 4)
    plain(inputs).square().sum().backward()
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = ReplicatedModel(weights(), gradient_dtype=dtype)
        model(inputs).square().sum().backward()
        grads = [p.grad for p in model.parameters()]
        assert len({grad.untyped_storage().data_ptr() for grad in grads}) == 1
        for grad, p in zip(grads, plain.parameters(), strict=True):
            assert torch.equal(grad, p.grad.to(getattr(torch, dtype)).float())
    finally:
        dist.destroy_process_group()


def test_wrong_precisions_and_groups_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="gradient_dtype must be one of float32, bfloat16, got 'f"):
        ReplicatedModel(torch.nn.Linear(1, 1), gradient_dtype='float16')
    monkeypatch.setattr(sharding, 'get_world_size', lambda: 8)
    with pytest.raises(ValueError, match='shard_size 3 does not divide the 8 processes'):
        sharding._mesh(3)


def test_validation_that_processes_cannot_share_is_refused():
    runner = SimpleNamespace(world_size=8, _val_dataloader=dict(dataset=dict(num_samples=1001)))
    with pytest.raises(ValueError, match='validation of 1001 samples by 8 processes'):
        DiffusionRunner._check_validation(runner)
    runner._val_dataloader['dataset']['num_samples'] = 1000
    DiffusionRunner._check_validation(runner)

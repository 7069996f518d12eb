"""Training at scale: several processes, sharded networks, accumulation, less memory, bf16."""

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

from mmsparsedit.apis import init_model
from mmsparsedit.apis.launch import ConfigError, load_config
from mmsparsedit.datasets.latent_format import save_shard, write_index
from mmsparsedit.engine import Bf16OptimWrapper, DiffusionRunner, ReplicatedModel, sharding
from mmsparsedit.engine.recompute import recompute_layers
from mmsparsedit.models import generators
from mmsparsedit.registry import MODELS

from runs import ROOT, SPARSE, TINY, run_ranks, train
from sharded_networks import NETWORKS

CONFIG = """# A sparse network on small latents.
_base_ = {base!r}
model = dict(network=dict(in_channels=4, hidden_size=16, num_heads=2), scale_factor=0.18215)
train_dataloader = dict(
    batch_size=8, dataset=dict(type='LatentDataset', data_root={data!r}, latent_shape=(4, 8, 8))
)
val_dataloader = val_cfg = val_evaluator = param_scheduler = None
default_hooks = dict(
    sample_grid=None,
    throughput=None,
    checkpoint=dict(interval=4),
    logger=dict(interval=1),
    runtime_info=dict(interval=1),
    ema=dict(momentum=0.1),
)
log_processor = dict(window_size=1)
"""
SHARDED_LAZY = """# The digits as a lazy config, sharded.
from mmengine.config import read_base

from mmsparsedit.engine import FullyShardedModel

with read_base():
    from .digits_lazy import *

model_wrapper_cfg = dict(type=FullyShardedModel)
"""
pytestmark = pytest.mark.slow(2)  # most of them read the runs of two processes
FSDP = 'model_wrapper_cfg.type=FullyShardedModel'
ONE_STAGE = ('model.prune.r_max=0.44', 'model.prune.num_stages=1')
ACCUMULATE = 'optim_wrapper.accumulative_counts=2'
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


def write_latents(folder, count=64):
    """Moments (4, 8, 8) of two shards, with flipped copies, by the package's writer."""
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    shards = []
    for number in range(2):
        tensors = dict(label=torch.randint(0, 10, (count // 2,), generator=draw))
        for copy in ('', '_flip'):
            mean = torch.randn(count // 2, 4, 8, 8, generator=draw) / 0.18215
            tensors[f'mean{copy}'] = mean.bfloat16()
            tensors[f'logvar{copy}'] = torch.full_like(mean, -4.0).bfloat16()
        shards.append(save_shard(folder, number, tensors))
    write_index(
        folder,
        shards=shards,
        latent_shape=(4, 8, 8),
        dtype='bf16',
        kind='moments',
        flipped=True,
        scale_factor=0.18215,
        classes=[],
        provenance={},
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
    root = tmp_path_factory.mktemp('scale')
    write_latents(root / 'latents')
    shutil.copytree(ROOT / 'configs', root / 'configs')
    (root / 'configs/sparsedit/sharded_lazy.py').write_text(SHARDED_LAZY)
    base = str(ROOT / 'configs/sparsedit/digits.py')
    (root / 'config.py').write_text(CONFIG.format(base=base, data=str(root / 'latents')))
    return root


def training(folder, name, *options, **more):
    """A job of ``scale_ranks.py``."""
    run = dict(work_dir=str(folder / name), iterations=8, options=options)
    return {**run, 'config': str(folder / 'config.py'), **more}


def run_jobs(folder, world, trainings, **differences):
    """What the jobs of ``world`` gloo processes found; trainings write folders of ``folder``."""
    place = folder / f'world{world}'
    place.mkdir()
    jobs = dict(trainings=trainings, differences=differences)
    (place / 'jobs.json').write_text(json.dumps(jobs))
    codes, texts = run_ranks('tests/scale_ranks.py', place / 'jobs.json', folder=place, world=world)
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


def curve(work_dir, key='loss'):
    rows = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = map(json.loads, path.read_text().splitlines())
        rows.update({line['step']: line[key] for line in lines if key in line})
    return rows


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


def halves(monkeypatch, iterations_per_batch):
    """Randomness of a batch of 16 for halves of 8 that come one after the other."""
    whole = generators.batch_randomness

    def of_half(seed, iteration, device):
        draw = whole(seed, iteration // iterations_per_batch, device)
        half = slice(8 * (iteration % 2), 8 * (iteration % 2) + 8)
        return lambda function, shape: draw(function, (16, *shape[1:]))[half]

    monkeypatch.setattr(generators, 'batch_randomness', of_half)


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


def test_accumulation_is_the_full_batch(folder, monkeypatch):
    """Randomness is a function of the iteration, which accumulation has more of: pinned here."""
    config = folder / 'config.py'
    train(folder / 'full', 4, 'train_dataloader.batch_size=16', *ONE_STAGE, config=config,
          tiny=False)  # fmt: skip
    halves(monkeypatch, 2)
    train(folder / 'accumulated', 8, ACCUMULATE, *ONE_STAGE, config=config, tiny=False)
    full = curve(folder / 'full')
    parts = curve(folder / 'accumulated')
    for step, loss in full.items():
        assert (parts[2 * step - 1] + parts[2 * step]) / 2 == pytest.approx(loss, rel=2e-5)
    full = torch.load(folder / 'full' / 'iter_4.pth', weights_only=True)
    parts = torch.load(folder / 'accumulated' / 'iter_8.pth', weights_only=True)
    for part in ('state_dict', 'ema_state_dict'):  # one update of the average per update
        for key in full[part]:
            if key != 'steps':
                torch.testing.assert_close(full[part][key], parts[part][key], rtol=0, atol=1e-4)


@pytest.mark.parametrize('accumulate,batch,expected', [(1, 16, 0.25), (4, 16, 1.0), (1, 64, 1.0)])
def test_learning_rate_follows_the_batch_of_an_update(
    folder, tmp_path, accumulate, batch, expected
):
    runner = train(
        tmp_path,
        1,
        f'optim_wrapper.accumulative_counts={accumulate}',
        f'train_dataloader.batch_size={batch}',
        'auto_scale_lr.enable=True',
        'auto_scale_lr.base_batch_size=64',
        config=folder / 'config.py',
        tiny=False,
    )
    assert runner.optim_wrapper.get_lr()['lr'] == [pytest.approx(5e-3 * expected)]


def build(folder, seed=0):
    config = load_config(str(folder / 'config.py'))
    torch.manual_seed(seed)
    generator = MODELS.build(config.model)
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return generator.train()


def gradients(generator):
    """Loss, gradients, and bytes that the backward pass was kept, of one batch."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = generator(
            inputs=torch.randn(16, 4, 8, 8), label=torch.arange(16) % 10, mode='loss'
        )
    losses['loss'].backward()
    weights = {p.untyped_storage().data_ptr() for p in generator.parameters()}
    memory = sum(size for place, size in kept.items() if place not in weights)
    return losses['loss'].item(), [p.grad for p in generator.parameters()], memory


def test_recomputation_keeps_a_fraction_and_changes_nothing(folder):
    loss, expected, memory = gradients(build(folder))
    generator = build(folder)
    recompute_layers(generator.network)
    again, got, less = gradients(generator)
    assert again == loss
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a, b)
    assert less < memory / 4
    recovery = generator.network.get_submodule('middle.0.recovery.0')
    assert not any('checkpoint' in name for name in recovery.state_dict())


def test_mmengines_key_of_recomputation_is_answered(folder, tmp_path):
    with pytest.raises(ValueError, match='recompute_layers=True'):
        train(tmp_path, 1, 'activation_checkpointing=network', config=folder / 'config.py',
              tiny=False)  # fmt: skip


def test_bf16_trains_float32_weights(folder, tmp_path):
    seen = set()
    forward = torch.nn.Linear.forward

    def recorded(self, x):
        out = forward(self, x)
        seen.add(out.dtype)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Linear, 'forward', recorded)
        runner = train(tmp_path / 'bf16', 8, 'optim_wrapper.type=Bf16OptimWrapper',
                       config=folder / 'config.py', tiny=False)  # fmt: skip
    assert seen == {torch.bfloat16} and isinstance(runner.optim_wrapper, Bf16OptimWrapper)
    train(tmp_path / 'fp32', 8, config=folder / 'config.py', tiny=False)
    bf16, fp32 = curve(tmp_path / 'bf16'), curve(tmp_path / 'fp32')
    assert bf16 == pytest.approx(fp32, rel=0.02) and bf16 != fp32
    saved = torch.load(tmp_path / 'bf16' / 'iter_8.pth', weights_only=True)
    assert {v.dtype for v in saved['state_dict'].values()} == {torch.float32}


def test_amp_option_sets_bf16(train_tool):
    config = load_config(str(ROOT / 'configs/sparsedit/digits.py'))
    train_tool.enable_amp(config)
    assert config.optim_wrapper.type == 'Bf16OptimWrapper'
    config.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ConfigError, match='the config has ApexOptimWrapper'):
        train_tool.enable_amp(config)

"""Trainings of a sparse network on small latents, and what they left behind."""

import json

import torch

from mmsparsedit.datasets.latent_format import save_shard, write_index

from runs import ROOT

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
ONE_STAGE = ('model.prune.r_max=0.44', 'model.prune.num_stages=1')
ACCUMULATE = 'optim_wrapper.accumulative_counts=2'


def write_config(folder):
    """``config.py`` in ``folder``, whose latents lie beside it."""
    write_latents(folder / 'latents')
    base = str(ROOT / 'configs/sparsedit/digits.py')
    (folder / 'config.py').write_text(CONFIG.format(base=base, data=str(folder / 'latents')))
    return folder / 'config.py'


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


def curve(work_dir, key='loss'):
    rows = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = map(json.loads, path.read_text().splitlines())
        rows.update({line['step']: line[key] for line in lines if key in line})
    return rows

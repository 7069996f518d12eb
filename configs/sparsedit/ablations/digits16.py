# Digits, fine-tuned from dit_digits16.py: the row that every other row of the ablations changes in
# one point.
_base_ = [
    '../../_base_/models/digits.py',
    '../../_base_/datasets/digits.py',
    '../../_base_/schedules/digits.py',
    '../../_base_/default_runtime.py',
]

load_from = 'work_dirs/dit_digits16/iter_800.pth'
model = dict(
    network=dict(
        num_bottom=2,
        num_sdtm=2,
        num_top=2,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,
        upsample='nearest',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.44,
        r_max=0.75,
        token_grid=(8, 8),
        num_timesteps=1000,
        num_stages=4,
    ),
)
train_cfg = dict(max_iters=200, val_interval=200)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=200, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=200),
    ema=dict(momentum=0.03),
    sample_grid=dict(interval=200, num_samples=50, columns=10),
)
val_dataloader = dict(dataset=dict(num_samples=500))
test_dataloader = val_dataloader

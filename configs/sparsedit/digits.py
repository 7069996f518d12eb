# Sparse DiT on handwritten digits, from scratch: r in [0.44, 0.75], grids 6x6, 5x5, 5x5, 4x4 of
# 8x8, one SDTM of the shape of XL's; no row of the paper (its Table 10 does it on ImageNet). 24
# digits an iteration, stages in turn (per_rank=False), do nearly as well as the dense model's 64.
_base_ = [
    '../_base_/models/digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/default_runtime.py',
]

model = dict(
    network=dict(
        num_bottom=1,
        num_sdtm=1,
        num_top=1,
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
        per_rank=False,
    ),
)
train_dataloader = dict(batch_size=24)
optim_wrapper = dict(optimizer=dict(lr=8e-3))
val_cfg = dict(type='SampledValLoop', num_steps=15)  # a test takes all 25
default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.01),
    sample_grid=dict(interval=500, num_samples=50, columns=10),
)

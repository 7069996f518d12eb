# Sparse DiT on 28 x 28 handwriting, from scratch: r in [0.61, 0.86] of 14x14, the rates of XL/2 at
# 256; no row of the paper (its Table 1 does it on ImageNet).
_base_ = [
    '../_base_/models/mnist28.py',
    '../_base_/datasets/mnist28.py',
    '../_base_/schedules/mnist28.py',
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
        r_min=0.61,
        r_max=0.86,
        token_grid=(14, 14),
        num_timesteps=1000,
        num_stages=4,
    ),
)
default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.005),
    sample_grid=dict(interval=500, num_samples=20, columns=10),
)

# Sparse PixArt on OpenMoji's pictures, from scratch: r in [0.61, 0.86] of 16x16; no row of the
# paper (its Table 3 is the same comparison on SAM).
_base_ = [
    '../_base_/models/openmoji.py',
    '../_base_/datasets/openmoji.py',
    '../_base_/schedules/openmoji.py',
    '../_base_/default_runtime.py',
]

model = dict(
    network=dict(
        num_bottom=1,
        num_sdtm=1,
        num_top=1,
        bottom_block=dict(type='PixArtPoolingBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,
        upsample='nearest',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.61,
        r_max=0.86,
        token_grid=(16, 16),
        num_timesteps=1000,
        num_stages=4,
    ),
)
default_hooks = dict(
    checkpoint=dict(interval=1000),
    ema=dict(momentum=0.005),
    sample_grid=dict(
        interval=1000,
        num_samples=16,
        columns=8,
        prompts=[
            'grinning face, face',
            'smiling face with sunglasses, face',
            'pouting face, face',
            'cat face with wry smile, face',
            'tiger face, animal',
            'pizza slice, food',
            'strawberry, food',
            'evergreen tree, plant',
        ],
    ),
)

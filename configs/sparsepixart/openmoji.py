# Sparse PixArt on OpenMoji's pictures, from scratch: the structure that plan_structure.py finds for
# 0.6 of the dense MACs, and bilinear upsampling, which is smoother than the authors' nearest; no
# row of the paper (its Table 3 is the same comparison on SAM).
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
        num_top=3,
        bottom_block=dict(type='PixArtPoolingBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 2, 1, 0)),
        reinject_pos_embed=True,
        upsample='bilinear',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        grids=[(10, 10), (8, 8), (6, 6), (6, 6)],
        boundaries=[250, 500, 750],
        token_grid=(16, 16),
        num_timesteps=1000,
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

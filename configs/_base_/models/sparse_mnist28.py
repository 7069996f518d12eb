# Sparse DiT for 28 x 28 handwriting: mnist28.py with a middle at r in [0.61, 0.86] of 14 x 14,
# and bilinear upsampling, which is smoother than the authors' nearest (mnist28_nearest.py).
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseDiT',
        input_size=28,
        patch_size=2,
        in_channels=1,
        hidden_size=64,
        num_heads=2,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=False,
        num_bottom=1,
        num_sdtm=1,
        num_top=3,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 2, 1, 0)),
        reinject_pos_embed=True,
        upsample='bilinear',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        grids=[(7, 7), (7, 7), (7, 7), (5, 5)],
        boundaries=[250, 500, 750],
        token_grid=(14, 14),
        num_timesteps=1000,
    ),
    diffusion=dict(type='RectifiedFlow', num_timesteps=1000, time_distribution='logit_normal'),
    sampler=dict(type='EulerSampler', num_steps=10),
    cfg_scale=1.5,
    cfg_channels=None,  # all; 3 reproduces DiT, which has 4
)

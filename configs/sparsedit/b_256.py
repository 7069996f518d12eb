# Table 1, ImageNet 256: SparseDiT-B, r in [0.61, 0.86], 14.34 G, FID 8.23.
_base_ = './dit_b_256.py'

load_from = 'work_dirs/dit_b_256/iter_400000.pth'  # no DiT-B is released: train dit_b_256.py first
model = dict(
    network=dict(
        num_bottom=1,
        num_sdtm=2,
        num_top=1,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 2, 1, 1)),
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

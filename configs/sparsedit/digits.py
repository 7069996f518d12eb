# Sparse DiT on handwritten digits, from scratch: r in [0.61, 0.86], grids 5x5, 4x4, 4x4, 3x3 of
# 8x8, the layout of Sparse-B; no row of the paper (its Table 10 does the same on ImageNet).
_base_ = './dit_digits.py'

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
        token_grid=(8, 8),
        num_timesteps=1000,
        num_stages=4,
    ),
)

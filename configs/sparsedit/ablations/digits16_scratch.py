# Digits, from scratch as Table 10: 2 PoolingFormers, 2 SDTMs, 2 dense layers on top; grids 6x6,
# 5x5, 5x5, 4x4 of 8x8.
_base_ = './dit_digits16.py'

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

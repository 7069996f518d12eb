# Sparse Latte on moving handwritten digits, from scratch: half the frames as in Table 2, r in
# [0.50, 0.72], grids 2x4x4, 2x4x4, 2x3x3, 2x3x3 of 4x4x4, one SDTM; no row of the paper.
_base_ = './latte_moving_digits.py'

model = dict(
    network=dict(
        num_bottom=2,
        num_sdtm=1,
        num_top=2,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='FactorisedSDTM', num_sparse=2),
        reinject_pos_embed=True,
        upsample='nearest',
        recover_order='temporal_first',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.50,
        r_max=0.72,
        token_grid=(4, 4, 4),
        num_frames=2,
        num_timesteps=1000,
        num_stages=4,
    ),
)

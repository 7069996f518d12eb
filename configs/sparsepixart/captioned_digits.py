# Sparse PixArt on captioned scenes of handwritten digits, from scratch: r in [0.44, 0.75], grids
# 3x6, 3x5, 2x5, 2x4 of 4x8; no row of the paper (its Table 3 is the same comparison on SAM).
_base_ = './pixart_captioned_digits.py'

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
        r_min=0.44,
        r_max=0.75,
        token_grid=(4, 8),
        num_timesteps=1000,
        num_stages=4,
    ),
)

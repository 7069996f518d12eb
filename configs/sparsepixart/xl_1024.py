# Sparse PixArt-alpha at 1024 x 1024: 4096 tokens, grids 32x32 ... 16x16; the paper has no such row.
_base_ = './pixart_xl_1024.py'

model = dict(
    network=dict(
        num_bottom=2,
        num_sdtm=4,
        num_top=2,
        bottom_block=dict(type='PixArtPoolingBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,
        upsample='nearest',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.75,
        r_max=0.9375,
        token_grid=(64, 64),
        num_timesteps=1000,
        num_stages=4,
    ),
)

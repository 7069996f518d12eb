# Table 3, SAM 256: Sparse PixArt-alpha, r in [0.61, 0.86], 91.62 G, FID 4.29, 0.701 img/s.
_base_ = './pixart_sam_256.py'

model = dict(
    network=dict(
        num_bottom=2,
        num_sdtm=4,
        num_top=2,
        bottom_block=dict(type='PixArtPoolingBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,  # paper, Sec. 4.1
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

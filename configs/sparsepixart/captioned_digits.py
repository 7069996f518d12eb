# Sparse PixArt on captioned scenes of handwritten digits, from scratch: r in [0.44, 0.75], grids
# 3x6, 3x5, 2x5, 2x4 of 4x8; no row of the paper (its Table 3 is the same comparison on SAM).
_base_ = [
    '../_base_/models/captioned_digits.py',
    '../_base_/datasets/captioned_digits.py',
    '../_base_/schedules/captioned_digits.py',
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
        r_min=0.44,
        r_max=0.75,
        token_grid=(4, 8),
        num_timesteps=1000,
        num_stages=4,
    ),
)
default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.01),
    sample_grid=dict(
        interval=500,
        num_samples=16,
        columns=4,
        cell=256,
        prompts=[
            'a seven to the left of a small three',
            'a small three to the left of a seven',
            'a zero to the left of an eight',
            'an eight to the left of a zero',
            'a small two to the left of a small four',
            'a small four to the left of a small two',
            'a five to the left of a five',
            'a six to the left of a small nine',
        ],
    ),
)

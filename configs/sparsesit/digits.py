# SparseSiT on handwritten digits, from scratch: r in [0.44, 0.75], grids 6x6, 5x5, 5x5, 4x4 of 8x8;
# no row of the paper.
_base_ = './sit_digits.py'

model = dict(
    network=dict(
        num_bottom=1, num_sdtm=1, num_top=1, sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1))
    ),
    prune=dict(type='TimestepPruneScheduler', r_min=0.44, r_max=0.75, token_grid=(8, 8)),
)

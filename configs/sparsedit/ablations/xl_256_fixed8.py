# Table 7, ImageNet 256: 8x8 tokens at every timestep, 68 G, FID 2.48. Also the grid at which the
# paper counts xl_256.py (Table 1, 68.05 G).
_base_ = '../xl_256.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(8, 8)], token_grid=(16, 16))
)

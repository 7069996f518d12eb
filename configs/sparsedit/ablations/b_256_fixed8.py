# Table 1, ImageNet 256: b_256.py at one grid for all timesteps, 8x8, at which the paper counts it:
# 14.34 G.
_base_ = '../b_256.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(8, 8)], token_grid=(16, 16))
)

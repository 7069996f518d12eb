# Table 1, ImageNet 512: xl_512.py at one grid for all timesteps, 8x8, at which the paper counts it:
# 235 G.
_base_ = '../xl_512.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(8, 8)], token_grid=(32, 32))
)

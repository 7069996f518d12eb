# Table 1, ImageNet 256: xl_256_r44_61.py at one grid for all timesteps, 12x12, at which the paper
# counts it: 88.91 G.
_base_ = '../xl_256.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(12, 12)], token_grid=(16, 16))
)

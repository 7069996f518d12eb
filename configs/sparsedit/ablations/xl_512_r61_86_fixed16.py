# Table 1, ImageNet 512: xl_512_r61_86.py at one grid for all timesteps, 16x16, at which the paper
# counts it: 286 G.
_base_ = '../xl_512.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(16, 16)], token_grid=(32, 32))
)

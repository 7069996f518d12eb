# Table 7, ImageNet 256: 6x6 tokens at every timestep, 61 G, FID 2.63.
_base_ = '../xl_256.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(6, 6)], token_grid=(16, 16))
)

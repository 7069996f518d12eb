# Table 3, SAM 256: sam_256.py at one grid for all timesteps, 8x8, as Table 1 counts; the 91.62 G of
# its row fit the schedule better.
_base_ = './sam_256.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(8, 8)], token_grid=(16, 16))
)

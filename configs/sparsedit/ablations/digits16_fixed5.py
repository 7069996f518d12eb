# Digits, as Table 7: 5x5 tokens at every timestep.
_base_ = './digits16.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(5, 5)], token_grid=(8, 8))
)

# Digits, as Table 7: 4x4 tokens at every timestep.
_base_ = './digits16.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(4, 4)], token_grid=(8, 8))
)

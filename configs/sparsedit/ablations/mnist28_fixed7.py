# Handwriting of 28 x 28, as Table 7: 7x7 tokens at every timestep.
_base_ = '../mnist28_finetune.py'

model = dict(
    prune=dict(_delete_=True, type='TimestepPruneScheduler', grids=[(7, 7)], token_grid=(14, 14))
)

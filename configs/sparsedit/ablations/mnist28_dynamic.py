# Handwriting of 28 x 28, as Table 7: grids of 9x9 to 5x5 instead of 7x7 at all but the noisiest
# timesteps.
_base_ = '../mnist28_finetune.py'

model = dict(
    prune=dict(
        _delete_=True,
        type='TimestepPruneScheduler',
        r_min=0.61,
        r_max=0.86,
        token_grid=(14, 14),
        num_timesteps=1000,
        num_stages=4,
    )
)

# mnist28_distill.py with a structure made by hand at the same MACs: no PoolingFormer, the middle as
# deep as the paper's, at the rates of XL/2 at 256, r in [0.61, 0.86]; no row of the paper.
_base_ = '../mnist28_distill.py'

model = dict(
    network=dict(num_bottom=0, num_top=2, sdtm=dict(block_counts=(1, 3, 1, 1))),
    prune=dict(
        _delete_=True,
        type='TimestepPruneScheduler',
        r_min=0.61,
        r_max=0.86,
        token_grid=(14, 14),
        num_timesteps=1000,
        num_stages=4,
        per_rank=False,
    ),
)

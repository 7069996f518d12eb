# One checkpoint for every budget on digits: each iteration draws its grid from 2x2 ... 8x8 of 8x8.
# Sample it with tools/sample.py --budget 0.45; no row of the paper.
_base_ = './digits.py'

model = dict(
    network=dict(sdtm=dict(type='SDTM', block_counts=(1, 4, 1, 0))),
    prune=dict(type='ElasticPruneScheduler', r_range=(0.0, 0.94), per_rank=True),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=5e-3))

# One checkpoint for every budget, and for guidance whose unconditional half leaves the middle out,
# in a tenth of the dense iterations, a fifth of them without the middle (train dit_mnist28.py
# first, and fit the merges to it). tools/sample.py --budget 0.5; no row of the paper.
_base_ = './mnist28_distill.py'

model = dict(
    prune=dict(type='ElasticPruneScheduler', r_range=(0.0, 0.94), skip_middle=0.2),
    cfg_prune=dict(grids=[(0, 0)]),
)
train_cfg = dict(max_iters=600, val_interval=600)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=600, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=600), ema=dict(momentum=0.0075), sample_grid=dict(interval=600)
)

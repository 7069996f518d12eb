# mnist28_finetune.py for as many iterations as the dense model had.
_base_ = './mnist28_finetune.py'

train_cfg = dict(max_iters=1500, val_interval=1500)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=1500, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=500), ema=dict(momentum=0.005), sample_grid=dict(interval=500)
)

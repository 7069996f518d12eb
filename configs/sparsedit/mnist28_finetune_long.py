# mnist28_finetune.py for twice as many iterations, half of those of the dense model.
_base_ = './mnist28_finetune.py'

train_cfg = dict(max_iters=3000, val_interval=3000)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=3000, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=3000), ema=dict(momentum=0.003), sample_grid=dict(interval=3000)
)

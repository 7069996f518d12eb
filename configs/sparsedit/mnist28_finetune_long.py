# mnist28_finetune.py for twice as many iterations, half of those of the dense model.
_base_ = './mnist28_finetune.py'

train_cfg = dict(max_iters=750, val_interval=750)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=750, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=750), ema=dict(momentum=0.01), sample_grid=dict(interval=750)
)

# mnist28_distill.py for half the iterations of the dense model, at a rate that long runs stand.
_base_ = './mnist28_distill.py'

train_cfg = dict(max_iters=3000, val_interval=3000)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=3000, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=3000),
    ema=dict(momentum=0.003),
    sample_grid=dict(interval=3000, num_samples=20, columns=10),
)

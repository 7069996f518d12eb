# mnist28_distill.py for three quarters of the iterations of the dense model.
_base_ = './mnist28_distill.py'

train_cfg = dict(max_iters=4500, val_interval=4500)
optim_wrapper = dict(optimizer=dict(lr=2.5e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=4500, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=4500),
    ema=dict(momentum=0.002),
    sample_grid=dict(interval=4500, num_samples=20, columns=10),
)

# Digits, from scratch as Table 10: the network of digits16.py by the recipe of dit_digits16.py.
_base_ = './digits16.py'

load_from = None
train_cfg = dict(max_iters=800, val_interval=800)
optim_wrapper = dict(optimizer=dict(lr=3e-3, betas=(0.9, 0.95)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=800, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=500), ema=dict(momentum=0.01), sample_grid=dict(interval=500)
)

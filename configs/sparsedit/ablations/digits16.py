# Digits, fine-tuned from dit_digits16.py: the row that every other row of the ablations changes in
# one point.
_base_ = './digits16_scratch.py'

load_from = 'work_dirs/dit_digits16/iter_800.pth'
train_cfg = dict(max_iters=200, val_interval=200)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=200, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=200), ema=dict(momentum=0.03), sample_grid=dict(interval=200)
)

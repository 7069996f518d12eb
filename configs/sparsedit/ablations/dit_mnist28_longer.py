# Dense control of mnist28_distill_long.py: the dense model trained on for as many iterations, by
# the same schedule.
_base_ = '../dit_mnist28.py'

load_from = 'work_dirs/dit_mnist28/iter_6000.pth'
train_cfg = dict(max_iters=4500, val_interval=4500)
optim_wrapper = dict(optimizer=dict(lr=2.5e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=4500, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=4500), sample_grid=dict(interval=4500))

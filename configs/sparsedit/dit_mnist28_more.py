# 2000 iterations more for the dense model of dit_mnist28.py, which is trained first; no row of the
# paper.
_base_ = './dit_mnist28.py'

load_from = 'work_dirs/dit_mnist28/iter_1500.pth'
train_cfg = dict(max_iters=2000, val_interval=2000)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=2000, eta_min=1e-5),
]

# The paper's way on OpenMoji: start from the dense checkpoint (train pixart_openmoji.py
# first, or fit the merges to it) and fine-tune the sparse model for 1500 iterations.
_base_ = './openmoji.py'

load_from = 'work_dirs/pixart_openmoji/iter_5000.pth'
train_cfg = dict(max_iters=1500, val_interval=1500)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=1500, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=1500), ema=dict(momentum=0.005), sample_grid=dict(interval=1500)
)

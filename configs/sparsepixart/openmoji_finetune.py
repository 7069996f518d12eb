# The paper's way on OpenMoji: start from the dense checkpoint (train pixart_openmoji.py
# first, or fit the merges to it) and fine-tune the sparse model for a quarter of its iterations.
_base_ = './openmoji.py'

load_from = 'work_dirs/pixart_openmoji/iter_1500.pth'
train_cfg = dict(max_iters=375, val_interval=375)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=375, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=375), ema=dict(momentum=0.015), sample_grid=dict(interval=375)
)

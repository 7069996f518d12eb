# Sparse PixArt on OpenMoji, made of the dense model, which teaches it, in as many iterations;
# stages take turns evenly (train pixart_openmoji.py first, and fit the merges to it).
# No row of the paper.
_base_ = './openmoji.py'

load_from = 'work_dirs/pixart_openmoji/iter_5000.pth'
model = dict(
    prune=dict(per_rank=False),
    distillation=dict(teacher='work_dirs/pixart_openmoji/iter_5000.pth'),
)
train_cfg = dict(max_iters=5000, val_interval=5000)
optim_wrapper = dict(optimizer=dict(lr=2.5e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=5000, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=5000), ema=dict(momentum=0.002))

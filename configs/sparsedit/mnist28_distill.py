# Sparse DiT on 28 x 28 handwriting, made of the dense model, which teaches it, in 3 % of its
# iterations; stages take turns evenly (train dit_mnist28.py first, and fit the merges to it).
# No row of the paper.
_base_ = [
    '../_base_/models/sparse_mnist28.py',
    '../_base_/datasets/mnist28.py',
    '../_base_/schedules/mnist28.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/dit_mnist28/iter_6000.pth'
model = dict(
    prune=dict(per_rank=False),
    distillation=dict(teacher='work_dirs/dit_mnist28/iter_6000.pth'),
)
train_cfg = dict(max_iters=180, val_interval=180)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=180, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=180),
    ema=dict(momentum=0.025),
    sample_grid=dict(interval=180, num_samples=20, columns=10),
)

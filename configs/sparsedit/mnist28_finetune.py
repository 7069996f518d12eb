# The paper's way on 28 x 28 handwriting: start from the dense checkpoint (train dit_mnist28.py
# first, or fit the merges to it) and fine-tune the sparse model for a quarter of its iterations.
_base_ = [
    '../_base_/models/sparse_mnist28.py',
    '../_base_/datasets/mnist28.py',
    '../_base_/schedules/mnist28.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/dit_mnist28/iter_6000.pth'
train_cfg = dict(max_iters=1500, val_interval=1500)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=1500, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=1500),
    ema=dict(momentum=0.005),
    sample_grid=dict(interval=1500, num_samples=20, columns=10),
)

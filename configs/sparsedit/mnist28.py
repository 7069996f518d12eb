# Sparse DiT on 28 x 28 handwriting, from scratch; no row of the paper (its Table 10 does it on
# ImageNet).
_base_ = [
    '../_base_/models/sparse_mnist28.py',
    '../_base_/datasets/mnist28.py',
    '../_base_/schedules/mnist28.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=2000),
    ema=dict(momentum=0.002),
    sample_grid=dict(interval=2000, num_samples=20, columns=10),
)

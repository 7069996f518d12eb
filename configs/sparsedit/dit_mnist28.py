# Dense baseline of mnist28.py; no row of the paper.
_base_ = [
    '../_base_/models/mnist28.py',
    '../_base_/datasets/mnist28.py',
    '../_base_/schedules/mnist28.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=2000),
    ema=dict(momentum=0.002),
    sample_grid=dict(interval=2000, num_samples=20, columns=10),
)

# Dense baseline of digits.py; no row of the paper.
_base_ = [
    '../_base_/models/digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.01),
    sample_grid=dict(interval=500, num_samples=50, columns=10),
)

# Dense baseline of moving_digits.py; no row of the paper.
_base_ = [
    '../_base_/models/moving_digits.py',
    '../_base_/datasets/moving_digits.py',
    '../_base_/schedules/moving_digits.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=1000),
    ema=dict(momentum=0.01),
    sample_grid=dict(interval=1000, num_samples=10),
)

# Dense baseline of captioned_digits.py; no row of the paper.
_base_ = [
    '../_base_/models/captioned_digits.py',
    '../_base_/datasets/captioned_digits.py',
    '../_base_/schedules/captioned_digits.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.01),
    sample_grid=dict(
        interval=500,
        num_samples=16,
        columns=4,
        cell=256,
        prompts=[
            'a seven to the left of a small three',
            'a small three to the left of a seven',
            'a zero to the left of an eight',
            'an eight to the left of a zero',
            'a small two to the left of a small four',
            'a small four to the left of a small two',
            'a five to the left of a five',
            'a six to the left of a small nine',
        ],
    ),
)

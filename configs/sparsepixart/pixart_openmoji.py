# Dense baseline of openmoji.py; no row of the paper.
_base_ = [
    '../_base_/models/openmoji.py',
    '../_base_/datasets/openmoji.py',
    '../_base_/schedules/openmoji.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=1000),
    ema=dict(momentum=0.005),
    sample_grid=dict(
        interval=1000,
        num_samples=16,
        columns=8,
        prompts=[
            'grinning face, face',
            'smiling face with sunglasses, face',
            'pouting face, face',
            'cat face with wry smile, face',
            'tiger face, animal',
            'pizza slice, food',
            'strawberry, food',
            'evergreen tree, plant',
        ],
    ),
)

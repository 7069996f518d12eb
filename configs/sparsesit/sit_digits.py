# SiT on handwritten digits, dense baseline of digits.py; no row of the paper.
_base_ = [
    '../_base_/models/digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/default_runtime.py',
]

model = dict(
    network=dict(type='SparseSiT', learn_sigma=False, spare_channels=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='EulerSampler', num_steps=10),
)
default_hooks = dict(
    checkpoint=dict(interval=500),
    ema=dict(momentum=0.01),
    sample_grid=dict(interval=500, num_samples=50, columns=10),
)

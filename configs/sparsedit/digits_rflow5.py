# Sparse rectified flow on digits in 5 Euler steps; no row of the paper (its Table 5 has it on
# ImageNet). Sample the checkpoint of digits_rflow.py with it.
_base_ = './digits.py'

model = dict(
    network=dict(learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='EulerSampler', num_steps=5),
)

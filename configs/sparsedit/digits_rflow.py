# Sparse rectified flow on digits, 10 Euler steps; no row of the paper (its Table 5 has it on
# ImageNet).
_base_ = './digits.py'

model = dict(
    network=dict(learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='EulerSampler', num_steps=10),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=5e-3))

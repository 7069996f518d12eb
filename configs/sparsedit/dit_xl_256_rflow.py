# Table 5, ImageNet 256: DiT-XL as rectified flow, 2M iterations, 5 steps, FID 43.40.
_base_ = './dit_xl_256.py'

model = dict(
    network=dict(learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='EulerSampler', num_steps=5),
)
train_cfg = dict(max_iters=2_000_000)

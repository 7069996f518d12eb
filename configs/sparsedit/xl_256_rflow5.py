# Table 5, ImageNet 256: SparseDiT-XL as rectified flow, 5 steps, FID 43.69 (dense 43.40).
_base_ = './xl_256.py'

load_from = 'work_dirs/dit_xl_256_rflow/iter_2000000.pth'  # train dit_xl_256_rflow.py first
model = dict(
    network=dict(learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='EulerSampler', num_steps=5),
)

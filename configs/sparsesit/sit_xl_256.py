# SiT-XL/2 at 256 (Ma et al. 2024), dense baseline of xl_256.py; no row of the paper.
_base_ = [
    '../_base_/models/dit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

model = dict(
    network=dict(type='SparseSiT', learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    # SiT's own table solves the ODE adaptively; 125 steps of Heun's method are 250 calls
    sampler=dict(_delete_=True, type='HeunSampler', num_steps=125),
)
train_cfg = dict(max_iters=7_000_000)

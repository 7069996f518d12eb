# SparseSiT-XL/2 at 256: SiT's checkpoint along SparseDiT's route, r in [0.61, 0.86]; no row of the
# paper.
_base_ = [
    '../_base_/models/sparsedit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

model = dict(
    network=dict(type='SparseSiT', learn_sigma=False),
    diffusion=dict(_delete_=True, type='RectifiedFlow', num_timesteps=1000),
    sampler=dict(_delete_=True, type='HeunSampler', num_steps=125),
)
# SiT-XL-2-256x256.pt of willisma/SiT (its download.py names the address)
load_from = 'checkpoints/SiT-XL-2-256x256.pt'

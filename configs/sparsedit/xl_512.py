# Table 1, ImageNet 512: SparseDiT-XL, r in [0.90, 0.96], 235 G, FID 3.13: the headline row.
_base_ = [
    '../_base_/models/sparsedit_xl_256.py',
    '../_base_/datasets/imagenet_latents_512.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

# https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-512x512.pt
load_from = 'checkpoints/DiT-XL-2-512x512.pt'
model = dict(
    network=dict(input_size=64),
    prune=dict(r_min=0.90, r_max=0.96, token_grid=(32, 32)),
)

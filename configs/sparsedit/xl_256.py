# Table 1, ImageNet 256: SparseDiT-XL, r in [0.61, 0.86], 68.05 G, FID 2.38.
_base_ = [
    '../_base_/models/sparsedit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

# https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt
load_from = 'checkpoints/DiT-XL-2-256x256.pt'

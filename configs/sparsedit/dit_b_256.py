# Table 1, ImageNet 256: DiT-B, 23.01 G, FID 9.07 (the paper does not say how long it was trained;
# 400 000 iterations is DiT's own length for models of this size).
_base_ = [
    '../_base_/models/dit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

model = dict(network=dict(hidden_size=768, num_heads=12, num_top=12))

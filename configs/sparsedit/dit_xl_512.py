# Table 1, ImageNet 512: DiT-XL, 525 G, FID 3.04 (the released checkpoint: 3M iterations).
_base_ = [
    '../_base_/models/dit_xl_256.py',
    '../_base_/datasets/imagenet_latents_512.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

model = dict(network=dict(input_size=64))
train_cfg = dict(max_iters=3_000_000)

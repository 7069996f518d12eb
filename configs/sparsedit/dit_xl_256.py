# Table 1, ImageNet 256: DiT-XL, 118.64 G, FID 2.27 (the released checkpoint: 7M iterations).
_base_ = [
    '../_base_/models/dit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=7_000_000)

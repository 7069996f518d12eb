# Table 2, UCF101: Latte-XL/2, 1894 G, FVD 284.54 (the released checkpoint).
_base_ = [
    '../_base_/models/latte_xl.py',
    '../_base_/datasets/ucf101_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

model = dict(network=dict(num_classes=101), cfg_scale=7.0)
custom_hooks = [dict(type='DelayedClipHook', start_iter=100_000)]

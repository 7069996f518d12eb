# Table 2, Taichi-HD: Latte-XL/2, 1894 G, FVD 89.63 (the released checkpoint).
_base_ = [
    '../_base_/models/latte_xl.py',
    '../_base_/datasets/taichi_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

custom_hooks = [dict(type='DelayedClipHook', start_iter=500_000)]

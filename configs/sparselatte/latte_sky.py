# Table 2, SkyTimelapse: Latte-XL/2, 1894 G, FVD 40.78 (the released checkpoint).
_base_ = [
    '../_base_/models/latte_xl.py',
    '../_base_/datasets/sky_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

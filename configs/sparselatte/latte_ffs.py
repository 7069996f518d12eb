# Table 2, FaceForensics: Latte-XL/2, 1894 G, FVD 24.10 (the released checkpoint).
_base_ = [
    '../_base_/models/latte_xl.py',
    '../_base_/datasets/ffs_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

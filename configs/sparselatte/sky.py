# Table 2, SkyTimelapse: SparseDiT on Latte-XL/2, r in [0.80, 0.93], 828 G, FVD 39.02.
_base_ = [
    '../_base_/models/sparselatte_xl.py',
    '../_base_/datasets/sky_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

# https://huggingface.co/maxin-cn/Latte
load_from = 'checkpoints/skytimelapse.pt'
# as large a share of Latte's training as the paper's 400K are of DiT's 7M
train_cfg = dict(max_iters=60_000)

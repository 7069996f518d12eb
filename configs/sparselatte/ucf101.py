# Table 2, UCF101: SparseDiT on Latte-XL/2, r in [0.80, 0.93], 828 G, FVD 288.90.
_base_ = [
    '../_base_/models/sparselatte_xl.py',
    '../_base_/datasets/ucf101_latents.py',
    '../_base_/schedules/latte.py',
    '../_base_/default_runtime.py',
]

# https://huggingface.co/maxin-cn/Latte
load_from = 'checkpoints/ucf101.pt'
model = dict(network=dict(num_classes=101), cfg_scale=7.0)
# as large a share of Latte's training as the paper's 400K are of DiT's 7M; clipping begins at the
# same share of it as Latte's, at 100 000 of a million
custom_hooks = [dict(type='DelayedClipHook', start_iter=6_000)]
train_cfg = dict(max_iters=60_000)

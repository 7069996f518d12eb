# Table 10, ImageNet 256: DiT-XL from scratch, 400K iterations, 118.64 G, FID 19.47 unguided.
_base_ = '../dit_xl_256.py'

model = dict(cfg_scale=1.0)
train_cfg = dict(max_iters=400_000)

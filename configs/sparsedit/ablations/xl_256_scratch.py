# Table 10, ImageNet 256: SparseDiT-XL from scratch, 400K iterations, 68.05 G, FID 15.11 unguided.
_base_ = '../xl_256.py'

load_from = None
model = dict(cfg_scale=1.0)

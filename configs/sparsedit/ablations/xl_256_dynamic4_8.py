# Table 7, ImageNet 256: 8x8 to 4x4 tokens, r in [0.75, 0.94], 61 G, FID 2.50.
_base_ = '../xl_256.py'

model = dict(prune=dict(r_min=0.75, r_max=0.94))

# Table 1, ImageNet 512: SparseDiT-XL, r in [0.61, 0.86], 286 G, FID 2.96.
_base_ = './xl_512.py'

model = dict(prune=dict(r_min=0.61, r_max=0.86))

# Table 1, ImageNet 256: SparseDiT-XL, r in [0.44, 0.61], 88.91 G, FID 2.23.
_base_ = './xl_256.py'

model = dict(prune=dict(r_min=0.44, r_max=0.61))

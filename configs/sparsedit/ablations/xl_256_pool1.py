# Table 6, ImageNet 256: 1 PoolingFormer and 3 dense layers on top, 68.80 G, FID 2.38.
_base_ = '../xl_256.py'

model = dict(network=dict(num_bottom=1, num_top=3))

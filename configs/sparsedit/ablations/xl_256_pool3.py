# Table 6, ImageNet 256: 3 PoolingFormers and 1 dense layer on top, 67.29 G, FID 2.56.
_base_ = '../xl_256.py'

model = dict(network=dict(num_bottom=3, num_top=1))

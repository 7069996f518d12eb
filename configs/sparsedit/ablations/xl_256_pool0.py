# Table 6, ImageNet 256: 0 PoolingFormers and 4 dense layers on top, 69.56 G, FID NaN.
_base_ = '../xl_256.py'

model = dict(network=dict(num_bottom=0, num_top=4))

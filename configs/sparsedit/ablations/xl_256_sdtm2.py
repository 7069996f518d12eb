# Table 4, ImageNet 256: 2 SDTMs at the cost of four, 67.00 G, FID 3.86. The paper does not print
# the layers of a module: these count so.
_base_ = '../xl_256.py'

model = dict(network=dict(num_sdtm=2, sdtm=dict(block_counts=(1, 7, 1, 3))))

# Table 4, ImageNet 256: 1 SDTM at the cost of four, 68.74 G, FID NaN. The paper does not
# print the layers of a module: these come closest to its cost (docs/ablations.md).
_base_ = '../xl_256.py'

model = dict(network=dict(num_sdtm=1, sdtm=dict(block_counts=(1, 14, 1, 8))))

# Table 4, ImageNet 256: 1 SDTM at the cost of four, 68.74 G, FID NaN. Not reproduced: the paper
# does not print the layers of its module, and none counts so; these come closest.
_base_ = '../xl_256.py'

model = dict(network=dict(num_sdtm=1, sdtm=dict(block_counts=(1, 14, 1, 8))))

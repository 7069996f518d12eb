# Table 4, ImageNet 256: 3 SDTMs at the cost of four, 69.97 G, FID 2.51. The paper does not print
# the layers of a module: these, with three PoolingFormers and one dense layer on top, count so.
_base_ = '../xl_256.py'

model = dict(
    network=dict(num_bottom=3, num_sdtm=3, num_top=1, sdtm=dict(block_counts=(1, 4, 1, 2)))
)

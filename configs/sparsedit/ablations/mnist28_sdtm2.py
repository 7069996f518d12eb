# Handwriting of 28 x 28, as Table 4: 2 SDTMs of one sparse layer instead of one of two.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(num_sdtm=2, num_top=1, sdtm=dict(block_counts=(1, 1, 1, 0))))

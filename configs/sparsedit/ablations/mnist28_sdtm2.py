# Handwriting of 28 x 28, as Table 4: 2 SDTMs instead of one, each with one sparse layer.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(num_sdtm=2, sdtm=dict(block_counts=(1, 1, 1, 0))))

# Handwriting of 28 x 28, as Table 6: 2 PoolingFormers and 2 dense layers on top.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(num_bottom=2, num_top=2))

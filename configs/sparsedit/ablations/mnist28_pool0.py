# Handwriting of 28 x 28, as Table 6: no PoolingFormer and 4 dense layers on top.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(num_bottom=0, num_top=4))

# Digits, as Table 6: 1 PoolingFormer and 3 dense layers on top.
_base_ = './digits16.py'

model = dict(network=dict(num_bottom=1, num_top=3))

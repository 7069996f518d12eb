# Digits, as Table 6: 3 PoolingFormers and 1 dense layer on top.
_base_ = './digits16.py'

model = dict(network=dict(num_bottom=3, num_top=1))

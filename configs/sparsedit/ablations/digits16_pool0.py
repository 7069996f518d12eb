# Digits, as Table 6: 0 PoolingFormers and 4 dense layers on top.
_base_ = './digits16.py'

model = dict(network=dict(num_bottom=0, num_top=4))

# Digits, as Table 4: 1 SDTM at the cost of two.
_base_ = './digits16.py'

model = dict(network=dict(num_sdtm=1, sdtm=dict(block_counts=(1, 7, 1, 3))))

# Digits, as Table 4: 3 SDTMs at the cost of two.
_base_ = './digits16.py'

model = dict(network=dict(num_sdtm=3, sdtm=dict(block_counts=(1, 2, 1, 0))))

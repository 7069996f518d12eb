# Digits, as Table 4: 4 SDTMs at the cost of two.
_base_ = './digits16.py'

model = dict(network=dict(num_sdtm=4, sdtm=dict(block_counts=(1, 1, 1, 0))))

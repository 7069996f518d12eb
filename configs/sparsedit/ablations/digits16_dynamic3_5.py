# Digits, as Table 7: 5x5 to 3x3 tokens, at the cost of a fixed 4x4.
_base_ = './digits16.py'

model = dict(prune=dict(r_min=0.61, r_max=0.86))

# Digits, position embedding not added again after a merge, as in the authors' code.
_base_ = './digits16.py'

model = dict(network=dict(reinject_pos_embed=False))

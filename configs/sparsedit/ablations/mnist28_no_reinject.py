# Handwriting of 28 x 28, position embedding not added again after a merge, as in the authors' code.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(reinject_pos_embed=False))

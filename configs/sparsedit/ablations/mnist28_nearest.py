# Handwriting of 28 x 28 with the upsampling of the authors' code.
_base_ = '../mnist28_finetune.py'

model = dict(network=dict(upsample='nearest'))

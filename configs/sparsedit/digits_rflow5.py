# Sparse rectified flow on digits in 5 Euler steps; no row of the paper (its Table 5 has it on
# ImageNet). Sample the checkpoint of digits_rflow.py with it.
_base_ = './digits_rflow.py'

model = dict(sampler=dict(num_steps=5))

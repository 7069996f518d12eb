# Sparse digits with 25 DDIM steps; no row of the paper (its Table 5 has it on ImageNet).
_base_ = './digits.py'

model = dict(sampler=dict(_delete_=True, type='DDIMSampler', num_steps=25))

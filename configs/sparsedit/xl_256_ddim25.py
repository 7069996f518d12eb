# Table 5, ImageNet 256: SparseDiT-XL with 25 DDIM steps, FID 3.31 (dense 2.89).
_base_ = './xl_256.py'

model = dict(sampler=dict(_delete_=True, type='DDIMSampler', num_steps=25))

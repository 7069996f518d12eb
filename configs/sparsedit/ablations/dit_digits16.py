# The dense model that the digits ablations start from: DiT of 16 layers, from scratch; the paper's
# counterpart is its Table 10.
_base_ = '../dit_digits.py'

model = dict(network=dict(num_top=16))
train_cfg = dict(max_iters=800, val_interval=800)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=800, eta_min=1e-5),
]
optim_wrapper = dict(optimizer=dict(lr=3e-3))
val_dataloader = dict(dataset=dict(num_samples=500))
test_dataloader = val_dataloader

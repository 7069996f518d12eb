# The paper's way on digits: start from the dense checkpoint (train dit_digits.py first) and
# fine-tune the sparse model for a tenth of its iterations.
_base_ = './digits.py'

load_from = 'work_dirs/dit_digits/iter_1500.pth'
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_iters=150, val_interval=150)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=150, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=150), ema=dict(momentum=0.03), sample_grid=dict(interval=150)
)

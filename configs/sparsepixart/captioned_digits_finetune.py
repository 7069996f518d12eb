# The paper's way on captioned digits: start from the dense checkpoint (train
# pixart_captioned_digits.py first) and fine-tune the sparse model for two fifths of its iterations;
# no row of the paper.
_base_ = './captioned_digits.py'

load_from = 'work_dirs/pixart_captioned_digits/iter_2500.pth'
train_cfg = dict(max_iters=1000, val_interval=1000)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=1000, eta_min=1e-5),
]
default_hooks = dict(ema=dict(momentum=0.02))

# digits_finetune.py with low-rank adapters: 1.9 % of the weights are trained, for 3 % of the dense
# iterations (train dit_digits.py first); no row of the paper.
_base_ = './digits.py'

load_from = 'work_dirs/dit_digits/iter_1500.pth'
# of attention and MLP what they write into the tokens; W1 and W2 as a whole
model = dict(
    network=dict(upsample='bilinear'),
    lora=dict(rank=1, targets=('proj', 'fc2')),
)
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_iters=45, val_interval=45)
optim_wrapper = dict(optimizer=dict(lr=5e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=45, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=45), ema=dict(momentum=0.1), sample_grid=dict(interval=45)
)

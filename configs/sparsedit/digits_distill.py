# digits_finetune.py with the dense model as teacher, for 3 % of its iterations (train dit_digits.py
# first). Bilinear upsampling starts nearer to the dense model; that stages take turns evenly, as in
# digits.py, matters where iterations are few; no row of the paper.
_base_ = './digits.py'

load_from = 'work_dirs/dit_digits/iter_1500.pth'
model = dict(
    network=dict(upsample='bilinear'),
    distillation=dict(teacher='work_dirs/dit_digits/iter_1500.pth'),
)
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_iters=45, val_interval=45)
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=45, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=45), ema=dict(momentum=0.1), sample_grid=dict(interval=45)
)

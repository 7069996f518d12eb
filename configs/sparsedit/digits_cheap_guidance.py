# One checkpoint for every budget, and for guidance whose unconditional half leaves the middle out:
# fine-tuned from the dense model, which teaches it (train dit_digits.py first), a fifth of the
# iterations without the middle. tools/sample.py --budget 0.5; no row of the paper.
_base_ = './digits.py'

load_from = 'work_dirs/dit_digits/iter_1500.pth'
model = dict(
    network=dict(upsample='bilinear'),
    prune=dict(type='ElasticPruneScheduler', r_range=(0.0, 0.94), skip_middle=0.2, per_rank=True),
    cfg_prune=dict(grids=[(0, 0)]),
    distillation=dict(teacher='work_dirs/dit_digits/iter_1500.pth'),
)
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_iters=150, val_interval=150)
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=150, eta_min=1e-5),
]
default_hooks = dict(
    checkpoint=dict(interval=150), ema=dict(momentum=0.03), sample_grid=dict(interval=150)
)

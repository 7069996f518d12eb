# Dense half an hour on one CPU core.
train_cfg = dict(type='SeekableTrainLoop', max_iters=5000, val_interval=5000)
optim_wrapper = dict(
    type='BufferedOptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=5000, eta_min=1e-5),
]

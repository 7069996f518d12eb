# PixArt's fine-tuning on SAM: learning rate 2e-5 at batch 256 and in proportion to the root of the
# batch (4.7e-5 at 8 x 176), constant after 1000 iterations; weight decay on all weights.
train_cfg = dict(type='SeekableTrainLoop', max_iters=100_000)
optim_wrapper = dict(
    type='BufferedOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-5, weight_decay=3e-2, eps=1e-10, fused=True),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
]

# DiT's recipe: constant learning rate, no warm-up, no decay, no clipping, batch 256.
train_cfg = dict(type='SeekableTrainLoop', max_iters=400_000)
optim_wrapper = dict(
    type='BufferedOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
)

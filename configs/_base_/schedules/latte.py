# Latte's recipe: constant learning rate, no warm-up, no decay; gradients are clipped to 0.1 only
# after start_iter, which differs between the data sets; 8 x 5 clips.
train_cfg = dict(type='SeekableTrainLoop', max_iters=1_000_000)
optim_wrapper = dict(
    type='BufferedOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [dict(type='DelayedClipHook', start_iter=20_000)]
auto_scale_lr = dict(enable=False, base_batch_size=40)

# What every run has: where it runs, what it logs, what it saves.
default_scope = 'mmsparsedit'
runner_type = 'DiffusionRunner'

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # without a GPU: gloo
)
randomness = dict(seed=0)
launcher = 'none'
load_from = None  # weights to start from, any layout of load_pretrained
resume = False

# hooks by name, so that a config can change one of them
default_hooks = dict(
    runtime_info=dict(type='BufferedRuntimeInfoHook', interval=10),
    loss_by_timestep=dict(type='LossByTimestepHook', interval=50),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50_000, max_keep_ckpts=3),
    ema=dict(type='EMAHook', ema_type='ForeachEMA', momentum=1e-4),  # decay 0.9999
    throughput=dict(type='ThroughputHook', interval=10),
    invalid_loss=dict(type='InvalidLossHook', interval=100),
    sample_grid=dict(type='SampleGridHook', interval=10_000, num_samples=16, num_steps=50),
    preemption=dict(type='PreemptionHook'),
    report=dict(type='ReportHook'),
)
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=10)
visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)

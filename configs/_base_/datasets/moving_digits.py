# Videos of one moving digit each, written by
#   python tools/dataset_converters/make_moving_digits.py --out data/moving_digits
# 200 generated clips are judged at the end.
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='VideoDataset',
        data_root='data/moving_digits',
        num_classes=10,
        clip=dict(num_frames=4, frame_interval=1, rule='stride'),
        pipeline=[
            dict(type='ResizeClip', size=16),
            dict(type='GrayClip'),
            dict(type='PackClip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='SampleRequests', num_samples=200, num_classes=10),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MovingDigitsMetric')
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='StoredTestLoop')

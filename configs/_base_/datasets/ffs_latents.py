# FaceForensics, face crops as video files; latents of all frames by
# tools/dataset_converters/extract_latents.py. 2 048 clips are judged.
train_dataloader = dict(
    batch_size=5,  # per process; Latte's recipe counts on 8
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='VideoLatents',
        data_root='data/ffs_latents',
        latent_shape=(4, 32, 32),
        num_frames=16,
        frame_interval=3,
        rule='linspace',
        scale_factor=0.18215,
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='SampleRequests', num_samples=2048),
)
# made by tools/dataset_converters/build_reference.py --video from the training videos
test_evaluator = dict(type='FVD', reference='data/ffs_i3d.npz', num_samples=2048)
test_cfg = dict(type='StoredTestLoop')
# what tools/dataset_converters/extract_latents.py reads
extract = dict(
    dataset=dict(
        type='VideoFrames',
        data_root='data/ffs',
        layout='files',
        min_frames=16,
        pipeline=[
            dict(type='ResizeShortSide', size=256),
            dict(type='CenterCropClip', size=256),
            dict(type='PackClip'),
        ],
    ),
    batch_size=32,
    num_workers=8,
)

# ImageNet latents of tools/dataset_converters/extract_latents.py; 50 000 samples against a
# reference of tools/dataset_converters/build_reference.py.
train_dataloader = dict(
    batch_size=8,  # per process
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='LatentDataset',
        data_root='data/imagenet1024_latents',
        latent_shape=(4, 128, 128),
        num_classes=1000,
        scale_factor=0.18215,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=256)
test_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='SampleRequests', num_samples=50_000, num_classes=1000),
)
test_evaluator = dict(
    type='ADMMetrics', reference='data/imagenet1024_reference.npz', num_samples=50_000
)
test_cfg = dict(type='StoredTestLoop')
# what tools/dataset_converters/extract_latents.py reads
extract = dict(
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet/train',
        num_classes=1000,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=1024),
            dict(type='PackImage'),
        ],
    ),
    batch_size=32,
    num_workers=8,
)

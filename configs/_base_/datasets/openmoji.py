# OpenMoji's faces, animals, plants and food: 269 pictures in training, whose captions are
# asked for by turns at the end.
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='OpenMoji',
        groups=('face', 'animal', 'plant', 'food'),
        autoencoder=dict(
            type='PatchPCA',
            patch=4,
            channels=16,
            dataset=dict(type='OpenMoji', groups=('face', 'animal', 'plant', 'food')),
        ),
    ),
)
val_dataloader = dict(
    batch_size=135,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='OpenMojiRequests', num_samples=270, groups=('face', 'animal', 'plant', 'food'), seed=1
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='RealImagesMetric',
    train=dict(type='OpenMoji', groups=('face', 'animal', 'plant', 'food')),
    held_out=dict(type='OpenMoji', groups=('face', 'animal', 'plant', 'food'), split='held_out'),
)
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='StoredTestLoop')

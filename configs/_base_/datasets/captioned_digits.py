# Scenes of two of scikit-learn's handwritten digits; 500 generated ones are judged at the end.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='CaptionedDigits', num_scenes=20_000, seed=0),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='CaptionedDigitsRequests', num_samples=500, seed=1),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CaptionedDigitsMetric')
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='StoredTestLoop')

# Dense baseline of xl_1024.py; the paper has no such row.
_base_ = './dit_xl_256.py'

model = dict(network=dict(input_size=128))
train_dataloader = dict(
    batch_size=8,
    dataset=dict(data_root='data/imagenet1024_latents', latent_shape=(4, 128, 128)),
)
test_evaluator = dict(reference='data/imagenet1024_reference.npz')
extract = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=1024),
            dict(type='PackImage'),
        ]
    )
)

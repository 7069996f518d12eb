# Table 1, ImageNet 512: DiT-XL, 525 G, FID 3.04 (the released checkpoint: 3M iterations).
_base_ = './dit_xl_256.py'

model = dict(network=dict(input_size=64))
train_dataloader = dict(
    dataset=dict(data_root='data/imagenet512_latents', latent_shape=(4, 64, 64))
)
test_evaluator = dict(reference='data/VIRTUAL_imagenet512.npz')
train_cfg = dict(max_iters=3_000_000)
extract = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=512),
            dict(type='PackImage'),
        ]
    )
)

# A dense DiT for 28 x 28 handwriting: 14 x 14 tokens of 2 x 2 pixels, width 96, 8 layers.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseDiT',
        input_size=28,
        patch_size=2,
        in_channels=1,
        hidden_size=96,
        num_heads=4,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=False,
        num_bottom=0,
        num_sdtm=0,
        num_top=8,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=False),
    sampler=dict(type='DDIMSampler', num_steps=25),
    cfg_scale=1.5,
    cfg_channels=None,  # all; 3 reproduces DiT, which has 4
)

# A dense DiT for 8 x 8 handwritten digits: 64 tokens of one pixel, width 64, 8 layers.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseDiT',
        input_size=8,
        patch_size=1,
        in_channels=1,
        hidden_size=64,
        num_heads=4,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=8,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True),
    sampler=dict(type='DDIMSampler', num_steps=25),
    cfg_scale=1.5,
    cfg_channels=None,  # all; 3 reproduces DiT, which has 4
)

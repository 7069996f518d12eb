# A dense Latte for 8 frames of 16 x 16 pixels: 8 x 8 tokens of 2 x 2 pixels a frame, width 64,
# 10 layers, in space and in time by turns.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseLatte',
        input_size=16,
        patch_size=2,
        in_channels=1,
        num_frames=8,
        hidden_size=64,
        num_heads=4,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=10,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True, channel_dim=2),
    sampler=dict(type='DDIMSampler', num_steps=25),
    cfg_scale=1.5,
    cfg_channels=None,  # all, as Latte
)

# A dense Latte for 4 frames of 12 x 12 pixels: 3 x 3 tokens of 4 x 4 pixels a frame, width 64,
# 10 layers, in space and in time by turns.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseLatte',
        input_size=12,
        patch_size=4,
        in_channels=1,
        num_frames=4,
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
    sampler=dict(type='DDIMSampler', num_steps=25, clip_denoised=True),
    cfg_scale=2.0,
    cfg_channels=None,  # all, as Latte
)

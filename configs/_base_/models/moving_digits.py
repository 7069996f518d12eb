# A dense Latte for 4 frames of 16 x 16 pixels: 4 x 4 tokens of 4 x 4 pixels a frame, width 64,
# 10 layers, in space and in time by turns. A rectified flow: Gaussian diffusion does not learn in
# as many iterations where the digit stands (docs/video.md).
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseLatte',
        input_size=16,
        patch_size=4,
        in_channels=1,
        num_frames=4,
        hidden_size=64,
        num_heads=4,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=False,
        num_bottom=0,
        num_sdtm=0,
        num_top=10,
    ),
    diffusion=dict(type='RectifiedFlow', num_timesteps=1000, channel_dim=2),
    sampler=dict(type='EulerSampler', num_steps=10),
    cfg_scale=2.0,
    cfg_channels=None,  # all, as Latte
)

# A dense DiT for 28 x 28 handwriting: 14 x 14 tokens of 2 x 2 pixels, width 64, 8 layers. A
# rectified flow, which learns in fewer iterations than predicting the noise.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseDiT',
        input_size=28,
        patch_size=2,
        in_channels=1,
        hidden_size=64,
        num_heads=2,
        num_classes=10,
        class_dropout_prob=0.1,
        learn_sigma=False,
        num_bottom=0,
        num_sdtm=0,
        num_top=8,
    ),
    diffusion=dict(type='RectifiedFlow', num_timesteps=1000, time_distribution='logit_normal'),
    sampler=dict(type='EulerSampler', num_steps=10),
    cfg_scale=1.5,
    cfg_channels=None,  # all; 3 reproduces DiT, which has 4
)

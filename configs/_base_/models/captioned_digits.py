# A dense PixArt for scenes of two handwritten digits: 4 x 8 tokens of 2 x 2 pixels, 8 layers.
model = dict(
    type='TextToImageGenerator',
    network=dict(
        type='SparsePixArt',
        input_size=(8, 16),
        patch_size=2,
        in_channels=1,
        hidden_size=64,
        num_heads=4,
        caption_channels=64,
        model_max_length=12,
        pe_base_size=16,
        pack_captions=True,  # captions have 9 to 11 tokens
        class_dropout_prob=0.1,
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=8,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True),
    sampler=dict(type='DDIMSampler', num_steps=25),
    text_encoder=dict(type='HashTextEncoder', channels=64, max_length=12),
    cfg_scale=2.0,
    cfg_channels=None,  # all; 3 reproduces PixArt, which has 4
)

# A dense PixArt for colour pictures of 64 x 64: latents of 16 x 16 cells of 16 principal components
# of 4 x 4 pixels, 256 tokens, width 64, 8 layers. A rectified flow, as for handwriting.
model = dict(
    type='TextToImageGenerator',
    network=dict(
        type='SparsePixArt',
        input_size=16,
        patch_size=1,
        in_channels=16,
        hidden_size=64,
        num_heads=2,
        caption_channels=64,
        model_max_length=16,
        pe_base_size=16,
        pack_captions=True,  # most captions have 4 to 9 tokens
        class_dropout_prob=0.1,
        learn_sigma=False,
        num_bottom=0,
        num_sdtm=0,
        num_top=8,
    ),
    diffusion=dict(type='RectifiedFlow', num_timesteps=1000, time_distribution='logit_normal'),
    sampler=dict(type='EulerSampler', num_steps=10),
    text_encoder=dict(type='HashTextEncoder', channels=64, max_length=16),
    autoencoder=dict(
        type='PatchPCA',
        patch=4,
        channels=16,
        dataset=dict(type='OpenMoji', groups=('face', 'animal', 'plant', 'food')),
    ),
    pixels_per_cell=4,
    cfg_scale=2.0,
    cfg_channels=None,  # all; 3 reproduces PixArt, which has 4
)

# Latte-XL/2: 28 layers, in space and in time by turns, on 16 frames of 16 x 16 tokens of a
# 4 x 32 x 32 latent; unconditional.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseLatte',
        input_size=32,
        patch_size=2,
        in_channels=4,
        num_frames=16,
        hidden_size=1152,
        num_heads=16,
        num_classes=None,
        class_dropout_prob=0.1,
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=28,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True, channel_dim=2),
    sampler=dict(type='DDPMSampler', num_steps=250),
    autoencoder=dict(type='DiffusersVAE', pretrained='stabilityai/sd-vae-ft-ema'),
    scale_factor=0.18215,
    uint8_rule='dit',  # 127.5 x + 128, cut off; 'adm': (x + 1) 127.5, another FID
    cfg_scale=1.0,
    cfg_channels=None,  # Latte guides all four latent channels
    # on a GPU: bf16 and compiled, sampling and training; auto=False is exact float32, dtype='tf32'
    # the float32 of DiT's own scripts. A CPU runs the network as it is.
    acceleration=dict(auto=True),
)

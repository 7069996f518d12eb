# DiT-XL/2 at 256 x 256: 28 layers on 16 x 16 tokens of a 4 x 32 x 32 latent.
model = dict(
    type='DiffusionGenerator',
    network=dict(
        type='SparseDiT',
        input_size=32,
        patch_size=2,
        in_channels=4,
        hidden_size=1152,
        num_heads=16,
        num_classes=1000,
        class_dropout_prob=0.1,
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=28,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True),
    sampler=dict(type='DDPMSampler', num_steps=250),
    autoencoder=dict(type='DiffusersVAE', pretrained='stabilityai/sd-vae-ft-ema'),
    scale_factor=0.18215,
    uint8_rule='dit',  # 127.5 x + 128, cut off; 'adm': (x + 1) 127.5, another FID
    cfg_scale=1.5,
    cfg_channels=3,  # DiT guides three of four latent channels; None would guide all
    # on a GPU: bf16 and compiled, sampling and training; auto=False is exact float32, dtype='tf32'
    # the float32 of DiT's own scripts. A CPU runs the network as it is.
    acceleration=dict(auto=True),
)

# PixArt-alpha XL/2 at 256 x 256: 28 layers on 16 x 16 tokens of a 4 x 32 x 32 latent, T5 captions.
model = dict(
    type='TextToImageGenerator',
    network=dict(
        type='SparsePixArt',
        input_size=32,
        patch_size=2,
        in_channels=4,
        hidden_size=1152,
        num_heads=16,
        caption_channels=4096,  # T5-v1.1-XXL
        model_max_length=120,
        pe_interpolation=1.0,  # lewei_scale of the reference: 1 at 256 and 512 px, 2 at 1024 px
        class_dropout_prob=0.1,  # of captions
        learn_sigma=True,
        num_bottom=0,
        num_sdtm=0,
        num_top=28,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True),
    sampler=dict(type='DDPMSampler', num_steps=100),  # IDDPM-100 of Table 3
    autoencoder=dict(type='DiffusersVAE', pretrained='stabilityai/sd-vae-ft-ema'),
    scale_factor=0.18215,
    uint8_rule='dit',  # 127.5 x + 128, cut off; 'adm': (x + 1) 127.5, another FID
    # needed for prompts only; training reads extracted features. A folder, or the name of a model
    # that is on this machine, with text_encoder and tokenizer inside.
    text_encoder=dict(type='T5TextEncoder', pretrained='DeepFloyd/t5-v1_1-xxl', max_length=120),
    cfg_scale=4.5,
    cfg_channels=3,  # PixArt's IDDPM guides three of four latent channels; None would guide all
    # on a GPU: bf16 and compiled, sampling and training; auto=False is exact float32, dtype='tf32'
    # the float32 of DiT's own scripts. A CPU runs the network as it is.
    acceleration=dict(auto=True),
)

# SparseDiT on Latte-XL/2: the 28 layers of latte_xl.py, 24 of them in four SDTMs on 8 frames of
# 10x10, 9x9, 8x8, 6x6 tokens; unconditional.
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
        num_bottom=2,
        num_sdtm=4,
        num_top=2,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='FactorisedSDTM', num_sparse=2),
        reinject_pos_embed=True,  # paper, Sec. 4.1
        upsample='nearest',
        recover_order='temporal_first',  # reproduces 828 G
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.80,
        r_max=0.93,
        token_grid=(16, 16, 16),
        num_frames=8,
        num_timesteps=1000,
        num_stages=4,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True, channel_dim=2),
    sampler=dict(type='DDPMSampler', num_steps=250),
    autoencoder=dict(type='DiffusersVAE', pretrained='stabilityai/sd-vae-ft-ema'),
    scale_factor=0.18215,
    cfg_scale=1.0,
    cfg_channels=None,  # Latte guides all four latent channels
    # on a GPU: bf16 and compiled, sampling and training; auto=False is exact float32, dtype='tf32'
    # the float32 of DiT's own scripts. A CPU runs the network as it is.
    acceleration=dict(auto=True),
)

# SparseDiT-XL/2 at 256 x 256: the 28 layers of dit_xl_256.py, 24 of them in four SDTMs on grids
# 10x10, 9x9, 8x8, 6x6 of 16x16 tokens.
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
        num_bottom=2,
        num_sdtm=4,
        num_top=2,
        bottom_block=dict(type='PoolingFormerBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,  # paper, Sec. 4.1; the authors' code leaves it out
        upsample='nearest',
    ),
    prune=dict(
        type='TimestepPruneScheduler',
        r_min=0.61,
        r_max=0.86,
        token_grid=(16, 16),
        num_timesteps=1000,
        num_stages=4,
    ),
    diffusion=dict(type='GaussianDiffusion', num_timesteps=1000, learn_sigma=True),
    sampler=dict(type='DDPMSampler', num_steps=250),
    autoencoder=dict(type='DiffusersVAE', pretrained='stabilityai/sd-vae-ft-ema'),
    scale_factor=0.18215,
    cfg_scale=1.5,
    cfg_channels=3,  # DiT guides three of four latent channels; None would guide all
    # on a GPU: bf16 and compiled, sampling and training; auto=False is exact float32, dtype='tf32'
    # the float32 of DiT's own scripts. A CPU runs the network as it is.
    acceleration=dict(auto=True),
)

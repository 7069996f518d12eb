# Table 3, SAM 256: Sparse PixArt-alpha, r in [0.61, 0.86], 91.62 G, FID 4.29, 0.701 img/s.
_base_ = [
    '../_base_/models/pixart_xl_256.py',
    '../_base_/datasets/sam_256.py',
    '../_base_/schedules/pixart.py',
    '../_base_/default_runtime.py',
]

# https://huggingface.co/PixArt-alpha/PixArt-alpha: PixArt-XL-2-SAM-256x256.pth
load_from = 'checkpoints/PixArt-XL-2-SAM-256x256.pth'
model = dict(
    network=dict(
        num_bottom=2,
        num_sdtm=4,
        num_top=2,
        bottom_block=dict(type='PixArtPoolingBlock'),
        sdtm=dict(type='SDTM', block_counts=(1, 3, 1, 1)),
        reinject_pos_embed=True,  # paper, Sec. 4.1
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
)
default_hooks = dict(
    sample_grid=dict(
        interval=5000,
        num_samples=4,
        columns=2,
        cell=256,
        prompts=[  # made only where the text encoder and the autoencoder are on this machine
            'a wooden boat on a calm lake in front of mountains',
            'a street market with fruit stands and people walking',
            'a white cat sleeping on a red sofa',
            'a bicycle leaning against a brick wall',
        ],
    ),
)

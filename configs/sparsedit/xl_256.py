# Table 1, ImageNet 256: SparseDiT-XL, r in [0.61, 0.86], 68.05 G, FID 2.38.
_base_ = './dit_xl_256.py'

# https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt
load_from = 'checkpoints/DiT-XL-2-256x256.pt'
model = dict(
    network=dict(
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
)
train_cfg = dict(max_iters=400_000)

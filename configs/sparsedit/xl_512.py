# Table 1, ImageNet 512: SparseDiT-XL, r in [0.90, 0.96], 235 G, FID 3.13: the headline row.
_base_ = './dit_xl_512.py'

# https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-512x512.pt
load_from = 'checkpoints/DiT-XL-2-512x512.pt'
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
        r_min=0.90,
        r_max=0.96,
        token_grid=(32, 32),
        num_timesteps=1000,
        num_stages=4,
    ),
)
train_cfg = dict(max_iters=400_000)

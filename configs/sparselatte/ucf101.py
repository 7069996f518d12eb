# Table 2, UCF101: SparseDiT on Latte-XL/2, r in [0.80, 0.93], 828 G, FVD 288.90.
_base_ = './latte_ucf101.py'

# https://huggingface.co/maxin-cn/Latte
load_from = 'checkpoints/ucf101.pt'
model = dict(
    network=dict(
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
)
# as large a share of Latte's training as the paper's 400K are of DiT's 7M
train_cfg = dict(max_iters=60_000)

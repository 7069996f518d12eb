# Table 1, ImageNet 256: SparseDiT-B, r in [0.61, 0.86], 14.34 G, FID 8.23.
_base_ = [
    '../_base_/models/sparsedit_xl_256.py',
    '../_base_/datasets/imagenet_latents_256.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/dit_b_256/iter_400000.pth'  # no DiT-B is released: train dit_b_256.py first
model = dict(
    network=dict(
        hidden_size=768,
        num_heads=12,
        num_bottom=1,
        num_sdtm=2,
        num_top=1,
        sdtm=dict(block_counts=(1, 2, 1, 1)),
    )
)

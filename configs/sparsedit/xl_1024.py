# DiT-XL at 1024 x 1024: 4096 tokens, grids 32x32 ... 16x16; the paper has no such row.
_base_ = [
    '../_base_/models/sparsedit_xl_256.py',
    '../_base_/datasets/imagenet_latents_1024.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

load_from = 'checkpoints/DiT-XL-2-512x512.pt'  # positions are recomputed for the larger grid
model = dict(
    network=dict(input_size=128),
    prune=dict(r_min=0.75, r_max=0.9375, token_grid=(64, 64)),
)

# Dense baseline of xl_1024.py; the paper has no such row.
_base_ = [
    '../_base_/models/dit_xl_256.py',
    '../_base_/datasets/imagenet_latents_1024.py',
    '../_base_/schedules/dit.py',
    '../_base_/default_runtime.py',
]

model = dict(network=dict(input_size=128))
train_cfg = dict(max_iters=7_000_000)

# Dense baseline of xl_1024.py: PixArt-alpha XL/2 1024-MS at 1024 x 1024; the paper has no such row.
_base_ = [
    '../_base_/models/pixart_xl_256.py',
    '../_base_/datasets/interndata_1024.py',
    '../_base_/schedules/pixart.py',
    '../_base_/default_runtime.py',
]

# https://huggingface.co/PixArt-alpha/PixArt-alpha: PixArt-XL-2-1024-MS.pth
load_from = 'checkpoints/PixArt-XL-2-1024-MS.pth'
model = dict(
    # another shape: e.g. input_size=(144, 112), pe_base_size=64, and token_grid=(72, 56) of prune
    network=dict(input_size=128, pe_interpolation=2.0, micro_condition=True),
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

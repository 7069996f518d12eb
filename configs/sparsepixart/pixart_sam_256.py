# Table 3, SAM 256: PixArt-alpha, 148.73 G, FID 4.53, 0.414 img/s (IDDPM-100).
_base_ = [
    '../_base_/models/pixart_xl_256.py',
    '../_base_/datasets/sam_256.py',
    '../_base_/schedules/pixart.py',
    '../_base_/default_runtime.py',
]

# https://huggingface.co/PixArt-alpha/PixArt-alpha: PixArt-XL-2-SAM-256x256.pth
load_from = 'checkpoints/PixArt-XL-2-SAM-256x256.pth'
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

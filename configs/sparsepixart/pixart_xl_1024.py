# Dense baseline of xl_1024.py: PixArt-alpha XL/2 1024-MS at 1024 x 1024; the paper has no such row.
_base_ = './pixart_sam_256.py'

# https://huggingface.co/PixArt-alpha/PixArt-alpha: PixArt-XL-2-1024-MS.pth
load_from = 'checkpoints/PixArt-XL-2-1024-MS.pth'
model = dict(
    # another shape: e.g. input_size=(144, 112), pe_base_size=64, and token_grid=(72, 56) of prune
    network=dict(input_size=128, pe_interpolation=2.0, micro_condition=True),
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type='PixArtJson',
        data_root='data/InternData',
        latent_dir='img_vae_features_1024resolution/noflip',
        caption_channels=4096,
        max_length=120,
        latent_shape=(4, 128, 128),
    ),
)
test_dataloader = dict(
    batch_size=4, dataset=dict(prompts='data/InternData/test_prompts.txt', num_samples=30_000)
)
test_evaluator = dict(reference='data/InternData_1024_reference.npz')
extract = dict(
    dataset=dict(
        _delete_=True,
        type='CaptionedImages',
        data_root='data/InternData',
        ann_file='partition/data_info.json',
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=1024),
            dict(type='PackImage'),
        ],
    ),
    batch_size=4,
)

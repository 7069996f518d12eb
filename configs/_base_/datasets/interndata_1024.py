# Latents and T5 features of 1024 x 1024 images by PixArt's JSON (docs/text_to_image.md); 30 000
# samples of captions that were held out, one a line, against own statistics of their images.
train_dataloader = dict(
    batch_size=4,  # per process
    num_workers=8,  # two files an item, one of them of 2 MB
    persistent_workers=True,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PixArtJson',
        data_root='data/InternData',
        latent_dir='img_vae_features_1024resolution/noflip',
        caption_channels=4096,
        max_length=120,
        latent_shape=(4, 128, 128),
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PromptRequests', prompts='data/InternData/test_prompts.txt', num_samples=30_000
    ),
)
test_evaluator = dict(
    type='ADMMetrics', reference='data/InternData_1024_reference.npz', num_samples=30_000
)
test_cfg = dict(type='StoredTestLoop')
# what tools/dataset_converters/extract_latents.py and extract_text_features.py read
extract = dict(
    dataset=dict(
        type='CaptionedImages',
        data_root='data/InternData',
        ann_file='partition/data_info.json',
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropPixArt', size=1024),
            dict(type='PackImage'),
        ],
    ),
    batch_size=4,
    num_workers=8,
)

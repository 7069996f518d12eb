# SAM's latents and T5 features as PixArt extracts them (docs/text_to_image.md); 30 000 samples of
# captions that were held out, one a line, against own statistics of their images.
train_dataloader = dict(
    batch_size=32,  # per process; the recipe counts on 8
    num_workers=8,  # two files an item, one of them of 2 MB
    persistent_workers=True,
    sampler=dict(type='SeekableSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='SAM',
        data_root='data/SA1B',
        image_list_txt='all',
        caption_channels=4096,
        max_length=120,
        latent_shape=(4, 32, 32),
    ),
)
test_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='PromptRequests', prompts='data/SA1B/test_prompts.txt', num_samples=30_000),
)
test_evaluator = dict(
    type='ADMMetrics', reference='data/SA1B_256_reference.npz', num_samples=30_000
)
test_cfg = dict(type='StoredTestLoop')
# what tools/dataset_converters/extract_latents.py and extract_text_features.py read
extract = dict(
    dataset=dict(
        type='CaptionedImages',
        data_root='data/SA1B',
        image_dir='images',
        caption_dir='captions',
        pipeline=[
            dict(type='LoadImage'),
            dict(type='CenterCropPixArt', size=256),
            dict(type='PackImage'),
        ],
    ),
    batch_size=32,
    num_workers=8,
)

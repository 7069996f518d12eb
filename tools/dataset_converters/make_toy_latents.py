"""Write a small folder of latents in the training format, without an autoencoder.

From random numbers, to try a config; or from a folder with one folder of images per class, through
a stand-in encoder: 8 x 8 average pooling of red, green, blue and luminance into four channels. The
stand-in is no VAE: a model trained on it learns real structure, but its samples are looked at as
small images, not through a decoder. The index records which it was.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import run_tool

POOL = 8  # pixels per latent cell, as in the autoencoders of latent diffusion
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOGVAR = -8.0  # log-variance of stand-in moments: a deviation of 0.018
SCALE_FACTOR = 0.18215


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--random', type=int, metavar='N', help='N latents of random numbers')
    source.add_argument('--images', type=Path, metavar='DIR', help='a folder of images')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--latent-size', type=int, default=32, help='height and width (default 32)')
    parser.add_argument('--num-classes', type=int, default=1000, help='for --random (default 1000)')
    parser.add_argument('--shard-size', type=int, default=4096, help='samples per file')
    parser.add_argument('--dtype', choices=('bf16', 'fp32'), default='bf16')
    parser.add_argument('--no-flip', action='store_true', help='no flipped copies')
    parser.add_argument('--seed', type=int, default=0, help='for --random (default 0)')
    args = parser.parse_args(argv)
    for name in ('random', 'latent_size', 'num_classes', 'shard_size'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")}: got {value}, expected at least 1')
    return args


def random_moments(numbers, args):
    """Mean of unit variance after scaling, from a generator per sample: (n, 4, h, w), labels."""
    import torch

    means, labels = [], []
    for number in numbers:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + number)
        size = args.latent_size
        means.append(torch.randn(4, size, size, generator=generator) / SCALE_FACTOR)
        labels.append(number % args.num_classes)
    return torch.stack(means), labels


def pooled_moments(items):
    """Stand-in encoder: images (3, H, W) in [-1, 1] to a mean (n, 4, H / 8, W / 8), and labels."""
    import torch
    import torch.nn.functional as F

    images = torch.stack([item['inputs'] for item in items])  # (n, 3, H, W)
    weight = torch.tensor(LUMINANCE)[:, None, None]
    images = torch.cat([images, (images * weight).sum(1, keepdim=True)], dim=1)  # (n, 4, H, W)
    return F.avg_pool2d(images, POOL) / SCALE_FACTOR, [item['label'] for item in items]


def main(argv=None):
    args = parse_args(argv)

    import torch

    from mmsparsedit.datasets.latent_format import (
        DTYPES,
        INDEX_NAME,
        save_shard,
        shard_name,
        write_index,
    )

    if (args.out / INDEX_NAME).exists() or (args.out / shard_name(0)).exists():
        raise ValueError(f'{args.out} holds latents already: name another folder or remove it')
    size = args.latent_size * POOL
    if args.images is None:
        source, encoder, count = 'random', 'none: independent Gaussian numbers', args.random
        classes = []
    else:
        from mmsparsedit.datasets.imagenet import ImageNet

        pipeline = [
            dict(type='LoadImage'),
            dict(type='CenterCropADM', size=size),
            dict(type='PackImage'),
        ]
        dataset = ImageNet(str(args.images), pipeline=pipeline, max_corrupt_share=0.5)
        source, count = f'{len(dataset)} images', len(dataset)
        encoder = 'stand-in: 8x8 average pooling of R, G, B and luminance, no VAE'
        classes = list(dataset.metainfo['classes'])

    args.out.mkdir(parents=True, exist_ok=True)
    shards, corrupt = [], []
    for start in range(0, count, args.shard_size):
        numbers = range(start, min(start + args.shard_size, count))
        if args.images is None:
            mean, labels = random_moments(numbers, args)
        else:
            items = [dataset.read(index) for index in numbers]
            corrupt += [item['corrupt'] for item in items if 'corrupt' in item]
            items = [item for item in items if 'corrupt' not in item]
            if not items:
                continue
            mean, labels = pooled_moments(items)
        tensors = {'mean': mean, 'logvar': torch.full_like(mean, LOGVAR)}
        if not args.no_flip:
            tensors |= {'mean_flip': mean.flip(-1), 'logvar_flip': tensors['logvar'].clone()}
        tensors = {name: tensor.to(DTYPES[args.dtype]) for name, tensor in tensors.items()}
        tensors['label'] = torch.tensor(labels, dtype=torch.int64)
        shards.append(save_shard(args.out, len(shards), tensors))
    write_index(
        args.out,
        shards=shards,
        latent_shape=(4, args.latent_size, args.latent_size),
        dtype=args.dtype,
        kind='moments',
        flipped=not args.no_flip,
        scale_factor=SCALE_FACTOR,
        classes=classes,
        provenance={'encoder': encoder, 'source': source, 'image_size': size, 'corrupt': corrupt},
    )
    total = sum(shard['num_samples'] for shard in shards)
    skipped = f', {len(corrupt)} corrupt images left out' if corrupt else ''
    print(f'{total} latents of 4 x {args.latent_size} x {args.latent_size} in {args.out}{skipped}')
    return 0


if __name__ == '__main__':
    run_tool(main)

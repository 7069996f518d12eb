"""Extract the latents of an image data set once, for training: ``docs/data.md``.

CONFIG has the key ``extract = dict(dataset=..., batch_size=..., num_workers=...)``; the autoencoder
is ``extract['autoencoder']`` or, without it, the one of ``model``. Repeat the command after a stop:
finished shards are kept. On several GPUs: torchrun --nproc_per_node 8 tools/dataset_converters/
extract_latents.py CONFIG --out D --launcher pytorch. On slurm: srun python ... --launcher slurm.
"""

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
}
SECONDS_BETWEEN_LINES = 10


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config with the key `extract`')
    parser.add_argument('--out', type=Path, required=True, help='folder of the latents')
    parser.add_argument('--vae', help='folder of the autoencoder, instead of the one of the config')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none')
    parser.add_argument('--dtype', choices=('bf16', 'fp32'), default='bf16', help='on disk')
    parser.add_argument('--no-flip', action='store_true', help='no flipped copies: half the disk')
    parser.add_argument('--shard-size', type=int, default=4096, help='images per file')
    parser.add_argument('--device', help='cuda, cuda:1, cpu; default: a GPU where there is one')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config')
    return parser.parse_args(argv)


def rank_of(launcher):
    """Rank, number of processes and rank on this machine, from the launcher's environment."""
    if launcher == 'none':
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            raise ValueError(
                f'got --launcher none in one of {os.environ["WORLD_SIZE"]} processes, expected '
                '--launcher pytorch: every process would extract everything'
            )
        return 0, 1, 0
    missing = [name for name in RANK_VARIABLES[launcher] if name not in os.environ]
    if missing:
        start = 'torchrun' if launcher == 'pytorch' else 'srun'
        raise ValueError(f'--launcher {launcher}: {missing[0]} is not set. Start with {start}.')
    return tuple(int(os.environ[name]) for name in RANK_VARIABLES[launcher])


class Progress:
    """A line every ten seconds: images done, speed, time left."""

    def __init__(self, rank, world_size):
        self.name = f'rank {rank} of {world_size}: ' if world_size > 1 else ''
        self.start = self.last = time.monotonic()

    def __call__(self, done, total):
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES and done < total:
            return
        self.last = now
        speed = done / max(now - self.start, 1e-9)
        left = timedelta(seconds=round((total - done) / speed))
        print(f'{self.name}{done}/{total} images, {speed:.1f} images/s, {left} left', flush=True)


def build(args):
    """Data set, autoencoder, settings and number of reading processes of a config."""
    from mmengine.config import Config, DictAction

    from mmsparsedit.datasets.extraction import make_settings
    from mmsparsedit.mim import find_config
    from mmsparsedit.registry import DATASETS, MODELS

    config = Config.fromfile(find_config(args.config))
    if args.cfg_options:
        action = argparse.ArgumentParser()
        action.add_argument('--set', nargs='+', action=DictAction)
        config.merge_from_dict(action.parse_args(['--set', *args.cfg_options]).set)
    extract = config.get('extract')
    if not extract or 'dataset' not in extract:
        raise ValueError(
            f'{args.config} has no `extract`, expected extract = dict(dataset=dict(type='
            "'ImageNet', data_root=..., pipeline=[...]), batch_size=32, num_workers=8)"
        )
    unknown = set(extract) - {'dataset', 'autoencoder', 'batch_size', 'num_workers'}
    if unknown:
        raise ValueError(
            f'{args.config}: unknown keys {sorted(unknown)} in `extract`, expected dataset, '
            'autoencoder, batch_size, num_workers'
        )
    part = extract.get('autoencoder') or config.get('model', {}).get('autoencoder')
    if not part:
        raise ValueError(
            f'{args.config} names no autoencoder: set extract.autoencoder or model.autoencoder to '
            "dict(type='DiffusersVAE', pretrained=FOLDER)"
        )
    part = dict(part, **({'pretrained': args.vae} if args.vae else {}))
    autoencoder = MODELS.build(part)
    if hasattr(autoencoder, 'check'):
        autoencoder.check()
    dataset = DATASETS.build(extract['dataset'])
    settings = make_settings(
        dataset,
        autoencoder,
        pipeline=extract['dataset'].get('pipeline', []),
        name=Path(str(part.get('pretrained', part['type']))).name,
        dtype=args.dtype,
        flipped=not args.no_flip,
        shard_size=args.shard_size,
        batch_size=extract.get('batch_size', 32),
    )
    return dataset, autoencoder, settings, extract.get('num_workers', 4)


def main(argv=None):
    args = parse_args(argv)
    rank, world_size, local_rank = rank_of(args.launcher)

    import torch

    from mmsparsedit.datasets.extraction import extract

    device = args.device
    if device is None:
        device = f'cuda:{local_rank}' if torch.cuda.is_available() else 'cpu'
    # the same kernels on every run, so that a restart gives the same bytes
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    dataset, autoencoder, settings, num_workers = build(args)
    complete = extract(
        dataset,
        autoencoder,
        args.out,
        settings,
        rank=rank,
        world_size=world_size,
        device=device,
        num_workers=num_workers,
        progress=Progress(rank, world_size),
    )
    if complete:
        print(f'{args.out} is complete: train with data_root={str(args.out)!r}')
    else:
        print(f'rank {rank} of {world_size} is done; the last to finish writes the index')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError) as error:
        # an error of a reading process arrives with its traceback in the text
        sys.exit(f'error: {str(error).strip().splitlines()[-1].removeprefix("ValueError: ")}')

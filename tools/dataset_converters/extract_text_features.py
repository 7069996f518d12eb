"""Encode the captions of a data set once, for training: ``docs/text_to_image.md``.

CONFIG has ``extract = dict(dataset=dict(type='CaptionedImages', ...))`` and ``model.text_encoder``.
Writes shards of features, and null_caption.npz, the encoded empty caption. Repeat the command after
a stop: finished shards are kept. Several processes: torchrun --nproc_per_node 8 tools/
dataset_converters/extract_text_features.py CONFIG --out D --launcher pytorch, or srun python ...
--launcher slurm.
"""

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

RANK_VARIABLES = {
    'none': (),
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
}
SECONDS_BETWEEN_LINES = 10


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config with the key `extract`')
    parser.add_argument('--out', type=Path, required=True, help='folder of the features')
    parser.add_argument('--encoder', help="folder of the text encoder, instead of the config's")
    parser.add_argument('--launcher', choices=tuple(RANK_VARIABLES), default='none')
    parser.add_argument('--dtype', choices=('bf16', 'fp32'), default='bf16', help='on disk')
    parser.add_argument('--shard-size', type=int, default=1024, help='captions per file')
    parser.add_argument('--batch-size', type=int, default=16, help='captions encoded at once')
    parser.add_argument('--device', help='cuda, cuda:1, cpu; default: a GPU where there is one')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config')
    return parser.parse_args(argv)


def rank_of(launcher):
    """Rank, number of processes and rank on this machine, from the launcher's environment."""
    names = RANK_VARIABLES[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        start = 'torchrun' if launcher == 'pytorch' else 'srun'
        raise ValueError(f'--launcher {launcher}: {missing[0]} is not set. Start with {start}.')
    if not names:
        return 0, 1, 0
    return tuple(int(os.environ[name]) for name in names)


class Progress:
    """A line every ten seconds: captions done, speed, time left."""

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
        print(
            f'{self.name}{done}/{total} captions, {speed:.1f} captions/s, {left} left', flush=True
        )


def build(args):
    """Data set, text encoder and its name."""
    from mmengine.config import Config, DictAction

    from mmsparsedit.mim import find_config
    from mmsparsedit.registry import DATASETS, MODELS

    config = Config.fromfile(find_config(args.config))
    if args.cfg_options:
        action = argparse.ArgumentParser()
        action.add_argument('--set', nargs='+', action=DictAction)
        config.merge_from_dict(action.parse_args(['--set', *args.cfg_options]).set)
    part = config.get('model', {}).get('text_encoder')
    source = (config.get('extract') or {}).get('dataset')
    if not part or not source:
        lacking = 'model.text_encoder' if source else 'extract.dataset'
        raise ValueError(
            f'{args.config} lacks {lacking}: expected '
            "extract = dict(dataset=dict(type='CaptionedImages', data_root=...)) and model = "
            "dict(text_encoder=dict(type='T5TextEncoder', pretrained=FOLDER))"
        )
    part = dict(part, **({'pretrained': args.encoder} if args.encoder else {}))
    encoder = MODELS.build(part)
    encoder.check()
    return DATASETS.build(source), encoder, Path(str(part.get('pretrained', part['type']))).name


def main(argv=None):
    args = parse_args(argv)
    rank, world_size, local_rank = rank_of(args.launcher)

    import torch

    from mmsparsedit.datasets.caption_features import caption_settings, extract_captions

    device = args.device
    if device is None:
        device = f'cuda:{local_rank}' if torch.cuda.is_available() else 'cpu'
    dataset, encoder, name = build(args)
    settings = caption_settings(dataset, encoder, name, args.dtype, args.shard_size)
    complete = extract_captions(
        dataset,
        encoder,
        args.out,
        settings,
        rank=rank,
        world_size=world_size,
        device=device,
        batch_size=args.batch_size,
        progress=Progress(rank, world_size),
    )
    if complete:
        print(f'{args.out} is complete: {len(dataset)} captions, {len(dataset.skipped)} skipped')
    else:
        print(f'rank {rank} of {world_size} is done; the last to finish writes the index')
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')

"""The weights of a training's checkpoint alone, to hand on: ``publish_model.py IN OUT``.

Kept are the averaged weights, which every command samples with, and what they were trained as.
Optimizer, raw weights, history and paths of this machine are left out. The first eight digits of
the file's SHA-256 go into its name, as in other projects of the stack: OUT-1a2b3c4d.pth.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, run_tool

KEPT = ('iter', 'mmengine_version', 'dataset_meta')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='checkpoint of train.py')
    parser.add_argument('dst', help='name to write, .pth or .safetensors (weights alone)')
    parser.add_argument('--dtype', choices=('fp32', 'bf16', 'fp16'), default='fp32')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import torch

    from mmsparsedit.models.checkpoints import read_checkpoint, write_checkpoint
    from mmsparsedit.models.checkpoints.load import extract_state_dict
    from mmsparsedit.utils.files import sha256_of

    target = Path(args.dst)
    if target.suffix not in ('.pth', '.safetensors'):
        raise ConfigError(f'OUT {args.dst!r} must end in .pth or .safetensors.')
    checkpoint = read_checkpoint(args.src)
    dtype = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)[args.dtype]
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in extract_state_dict(checkpoint).items()
    }
    if target.suffix == '.pth':
        meta = checkpoint.get('meta', {})
        content = dict(meta={k: meta[k] for k in KEPT if k in meta}, state_dict=state)
    else:
        content = state
    write_checkpoint(content, target)
    named = target.with_name(f'{target.stem}-{sha256_of(target)[:8]}{target.suffix}')
    target.rename(named)
    print(f'{len(state)} weights, {named.stat().st_size / 1e6:.1f} MB, in {named}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

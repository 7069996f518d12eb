"""Time of a network call beside that of public code: DiT, SparseDiT, diffusers.

``python tools/misc/time_against_references.py --dit ~/DiT --sparsedit ~/SparseDiT --diffusers``:
both sides run by turns on the same weights; above 1 this package is quicker. The checkouts need
timm.
"""

import argparse

from mmsparsedit.apis.documents import markdown_table, parse_table, show_table
from mmsparsedit.apis.launch import run_tool

FILES = {'dit': 'models.py', 'sparsedit': 'vision_transformer.py'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Run networks of public repositories and those of this package by turns, on '
        'the same weights and inputs, in float32, and print the ratio of their times.'
    )
    parser.add_argument('--dit', metavar='PATH', help='checkout of facebookresearch/DiT')
    parser.add_argument('--sparsedit', metavar='PATH', help='checkout of changsn/SparseDiT')
    parser.add_argument('--diffusers', action='store_true', help='the installed diffusers')
    parser.add_argument('--width', type=int, default=768)
    parser.add_argument('--heads', type=int, default=12)
    parser.add_argument('--layers', type=int, default=12)
    parser.add_argument('--latent', type=int, default=32, help='height and width of the input')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--threads', type=int, help='of a CPU')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    parse_table(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.clock import machine
    from mmsparsedit.apis.references.repositories import check_repository
    from mmsparsedit.apis.references.speed import TimedNetworks

    given = {
        name: check_repository(getattr(args, name), f'--{name}', file)
        for name, file in FILES.items()
        if getattr(args, name)
    }
    if not given and not args.diffusers:
        raise ValueError('nothing to compare with: name --dit, --sparsedit or --diffusers.')
    if args.threads:
        torch.set_num_threads(args.threads)
    init_default_scope('mmsparsedit')
    networks = TimedNetworks(
        args.width, args.heads, args.layers, args.latent, args.batch_size, args.device
    )
    sources = {name: getattr(networks, name)(folder) for name, folder in given.items()}
    if args.diffusers:
        sources['diffusers'] = networks.diffusers()
    found = []
    with torch.inference_mode():
        for name, pairs in sources.items():
            found += [dict(code=name, **pair.time(args.rounds, args.device)) for pair in pairs]
    rows = [['public code', 'compared', 'their time / ours', 'quartiles', 'max deviation']]
    for row in found:
        ratio = row['ratio']
        rows.append([
            row['code'], row['compared'], f'{ratio["median"]:.3f}',
            f'{ratio["q1"]:.3f} – {ratio["q3"]:.3f}', f'{row["deviation"]:.1e}',
        ])  # fmt: skip
    what = machine(args.device)
    figures = dict(rows=found, rounds=args.rounds, batch=args.batch_size, **what)
    setting = f'{what["device"]}, torch {what["torch"]}, batch {args.batch_size}'
    print(f'{setting}, {args.rounds} rounds by turns')
    show_table(markdown_table(rows, right=(2,)), figures, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

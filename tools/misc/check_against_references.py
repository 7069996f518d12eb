"""Differences from the public repositories: networks, guidance, losses, loops, statistics.

``python tools/misc/check_against_references.py --dit ~/DiT --pixart ~/PixArt-alpha``: checkouts of
which any may be left out. Theirs is run as it is; what it imports and cannot be had is replaced by
a few lines, which docs/fidelity.md names. They need timm; Latte and PixArt einops, SiT torchdiffeq.
"""

import argparse
from dataclasses import dataclass

from mmsparsedit.apis.documents import markdown_table, parse_table, show_table
from mmsparsedit.apis.launch import run_tool


@dataclass(frozen=True)
class Repository:
    """A public repository: where it is, the file that tells it, the check in which module."""

    name: str
    file: str
    module: str
    check: str


REPOSITORIES = {
    'dit': Repository('facebookresearch/DiT', 'models.py', 'networks', 'check_dit'),
    'sit': Repository('willisma/SiT', 'transport/path.py', 'networks', 'check_sit'),
    'sparsedit': Repository(
        'changsn/SparseDiT', 'vision_transformer.py', 'networks', 'check_sparsedit'
    ),
    'latte': Repository(
        'Vchitect/Latte', 'models/latte.py', 'networks', 'check_latte'
    ),
    'pixart': Repository(
        'PixArt-alpha/PixArt-alpha', 'diffusion/model/nets/PixArtMS.py', 'networks',
        'check_pixart',
    ),
    'guided-diffusion': Repository(
        'openai/guided-diffusion', 'evaluations/evaluator.py', 'statistics',
        'check_guided_diffusion',
    ),
    'stylegan-v': Repository(
        'universome/stylegan-v', 'src/metrics/frechet_video_distance.py', 'statistics',
        'check_stylegan_v',
    ),
    'fora': Repository('prathebaselva/FORA', 'src/models.py', 'methods', 'check_fora'),
    'taylorseer': Repository(
        'Shenyi-Z/TaylorSeer', 'TaylorSeer-DiT/taylor_utils/__init__.py', 'methods',
        'check_taylorseer',
    ),
    'teacache': Repository(
        'ali-vilab/TeaCache', 'eval/teacache/experiments/latte.py', 'methods', 'check_teacache'
    ),
}  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Run public repositories beside this package on the same weights, inputs and '
        'noise, and print the largest difference of each part, relative to the largest value.'
    )
    for option, repository in REPOSITORIES.items():
        parser.add_argument(f'--{option}', metavar='PATH', help=f'checkout of {repository.name}')
    parser.add_argument(
        '--diffusers', action='store_true', help='the installed diffusers on exported weights'
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    parse_table(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import importlib

    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.references.repositories import check_repository, commit_of

    given = {
        option: check_repository(path, f'--{option}', repository.file)
        for option, repository in REPOSITORIES.items()
        if (path := getattr(args, option.replace('-', '_')))
    }
    if not given and not args.diffusers:
        options = ', '.join(f'--{option}' for option in REPOSITORIES)
        raise ValueError(f'no repository given: name at least one checkout by {options}.')
    init_default_scope('mmsparsedit')
    results = []
    for option, folder in given.items():
        repository = REPOSITORIES[option]
        check = getattr(
            importlib.import_module(f'mmsparsedit.apis.references.{repository.module}'),
            repository.check,
        )
        results += [
            dict(
                repository=repository.name,
                commit=commit_of(folder),
                part=row.part,
                deviation=row.value,
            )
            for row in check(folder)
        ]
    if args.diffusers:
        import diffusers

        from mmsparsedit.apis.references.networks import check_diffusers

        name = dict(repository='huggingface/diffusers', commit=diffusers.__version__)
        results += [dict(**name, part=row.part, deviation=row.value) for row in check_diffusers()]
    show_table(deviation_table(results), results, args)


def deviation_table(results: list[dict]) -> list[str]:
    """Markdown: a row for each part of each repository."""
    rows = [['repository', 'commit', 'compared', 'max deviation']]
    for result in results:
        name = result['repository']
        link = f'[{name}](https://github.com/{name})'
        rows.append([link, result['commit'], result['part'], f'{result["deviation"]:.1e}'])
    return markdown_table(rows, right=(3,))


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

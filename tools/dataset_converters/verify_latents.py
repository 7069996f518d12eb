"""Recompute the checksums of a folder of latents; exit status 1 if a file is damaged or missing."""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import run_tool


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='folder with index.json')
    parser.add_argument('--threads', type=int, default=4, help='files read at once (default 4)')
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f'--threads: got {args.threads}, expected at least 1')

    from mmsparsedit.datasets.latent_format import read_index, verify_folder

    problems = verify_folder(args.folder, args.threads)
    for problem in problems:
        print(problem)
    index = read_index(args.folder)
    print(
        f'{args.folder}: {index["num_samples"]} samples in {len(index["shards"])} shards, '
        + (f'{len(problems)} problems' if problems else 'all checksums match')
    )
    return 1 if problems else 0


if __name__ == '__main__':
    run_tool(main)

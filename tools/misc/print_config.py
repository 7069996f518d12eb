"""Print a config, bases and options merged: ``python tools/misc/print_config.py CONFIG``."""

import argparse

from mmsparsedit.apis.launch import load_config, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print the whole config.')
    parser.add_argument('config')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    print(load_config(args.config, args.cfg_options).pretty_text)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)

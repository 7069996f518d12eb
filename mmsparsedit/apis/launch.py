"""What the command-line tools share: configs checked early, errors in one line, runners."""

import argparse
import difflib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from mmsparsedit.utils.files import check_place, full_disk

from .config_files import ConfigError, check_given, check_parts, merge_options, read_config
from .stack import import_stack

__all__ = [
    'ConfigError',
    'asked_budget',
    'load_config',
    'output_file',
    'parse_budget',
    'parse_options',
    'parse_sampling',
    'run_tool',
]

# top-level keys that MMEngine or this package read besides the Runner's own arguments
EXTRA_KEYS = {
    'runner_type',
    'custom_imports',
    'env_cfg',
    'model_wrapper_cfg',
    'find_unused_parameters',
    'sync_bn',
    'compile',
    'activation_checkpointing',
    'recompute_layers',
    'efficient_conv_bn_eval',
    'auto_scale_lr',
    'extract',
    'load_options',
    'train_pipeline',
    'val_pipeline',
    'test_pipeline',
}


class Options(argparse.Action):
    """MMEngine's ``DictAction``, imported when an option is given: ``--help`` does not wait."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


def output_file(text: str) -> Path:
    """Type of an argument that names a file to write: refused at once where it cannot be."""
    try:
        check_place(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def parse_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all tools with a config have."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='change keys of the config, e.g. train_dataloader.batch_size=32',
    )
    parser.add_argument(
        '--traceback', action='store_true', help='show where an error of the input arose'
    )


def parse_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``choose_sampler`` takes."""
    parser.add_argument('--sampler', help='ddpm, ddim, euler, heun, dpmsolver++, unipc, sa-solver')
    parser.add_argument('--num-steps', type=int, help='of the sampler')
    parser.add_argument('--cfg-scale', type=float, help='1 is no guidance')


def parse_budget(parser: argparse.ArgumentParser) -> None:
    """Add ``--budget`` and ``--target-speedup``, which ``asked_budget`` reads."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--budget',
        type=float,
        help="of an elastic model: share of the dense model's MACs, such as 0.45",
    )
    group.add_argument(
        '--target-speedup',
        type=float,
        help='the same as 1 / budget: how many times fewer MACs; the clock gains less',
    )


def asked_budget(args: argparse.Namespace) -> float | None:
    """The budget of a command line; None where none was given."""
    if args.target_speedup is not None:
        if not 0 < args.target_speedup < float('inf'):
            raise ValueError(
                f'--target-speedup {args.target_speedup}: expected a number above 0, such as 2.'
            )
        return 1 / args.target_speedup
    return args.budget


def load_config(path: str, options: dict | None = None):
    """Read a config, apply ``--cfg-options``, and refuse keys that nobody reads.

    Args:
        path: a file, or the name of a config of the package (``mmsparsedit.mim``).

    Raises:
        ConfigError: no such file, an error in it, a key that resembles a known one, an option for
            an unknown key, a value that cannot work.
    """
    config = read_config(path)
    import_stack()  # before the Runner
    check_given(config, options, known_keys(), path)
    merge_options(config, options, path)
    check_keys(config, path)
    check_parts(config._cfg_dict, path)  # a Config is no mapping
    if config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(path).stem)
    return config


def known_keys() -> set[str]:
    """Top-level keys that somebody reads."""
    from mmengine.runner import Runner

    return set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | EXTRA_KEYS


def check_keys(config, path: str) -> None:
    """Refuse a top-level key that nobody reads and that resembles one that somebody does."""
    known = known_keys()
    for key in config.to_dict():  # without what a lazy config has imported
        if key in known or key.startswith('_'):
            continue
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if close:
            raise ConfigError(
                f'config {path}: key {key!r} is unknown, did you mean {close[0]!r}? Nothing '
                'would read it. Names of your own that are no misspelling are left alone.'
            )


def check_classes(config) -> None:
    """Refuse data or requests with more classes than the network has, before any work.

    Raises:
        ConfigError: e.g. a test of 1000 classes for a network of three.
    """
    network = (config.get('model') or {}).get('network') or {}
    if network.get('num_classes') is None:
        return
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (config.get(key) or {}).get('dataset')
        asked = dataset.get('num_classes') if isinstance(dataset, dict) else None
        if isinstance(asked, int) and asked > network['num_classes']:
            raise ConfigError(
                f'{key} has {asked} classes, the network {network["num_classes"]}: set '
                f'{key}.dataset.num_classes={network["num_classes"]}, or model.network.num_classes '
                f'to {asked}.'
            )


def build_runner(config):
    """The Runner that ``runner_type`` names."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    from mmsparsedit.registry import RUNNERS

    check_classes(config)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    if 'runner_type' in config:
        return RUNNERS.build(config)
    return Runner.from_cfg(config)


def run_tool(main: Callable[..., int | None], args: argparse.Namespace | None = None) -> None:
    """Run a tool; an error of the input ends it with one line on stderr and exit code 2.

    Errors after the first iteration are not the user's: they keep their traceback, unless they are
    the system's, such as a full disk.

    Args:
        main: returns the exit code, or None for 0.
        args: None for a ``main`` that reads the command line itself.
    """
    try:
        code = main() if args is None else main(args)
    except Exception as error:
        shown = '--traceback' in sys.argv if args is None else getattr(args, 'traceback', False)
        stated = isinstance(error, FloatingPointError | OSError) or full_disk(error) is not None
        if shown or (_iterating(error) and not stated):
            raise
        clear = isinstance(error, ConfigError | OSError) or not hasattr(args, 'traceback')
        hint = '' if clear else ' (--traceback shows where)'
        print(f'error: {one_line(error)}{hint}', file=sys.stderr, flush=True)
        sys.exit(2)
    if code or args is None:
        sys.exit(code)


def one_line(error: Exception) -> str:
    """What a user is told of an error, without line breaks."""
    error = full_disk(error) or error
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if not isinstance(error, ValueError | KeyError | TypeError | OSError | ImportError):
        message = f'{type(error).__name__}: {message}'
    if 'Original Traceback' in message:  # of a worker of a data loader
        message = message.strip().splitlines()[-1].partition(': ')[2]
    message = f'{message}{accepted_names(message)}'
    return ' '.join(message.split()) or type(error).__name__


def accepted_names(message: str) -> str:
    """What a config may say where it named an unknown type or an unknown argument of one."""
    from mmengine.registry import Registry

    from mmsparsedit import registry

    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    argument = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if argument:
        for candidates in registries:
            for module in candidates.module_dict.values():
                for i, base in enumerate(bases := getattr(module, '__mro__', ())):
                    if base.__name__ == argument[1]:
                        return f'; it takes {", ".join(_arguments(bases[i:]))}'
    unknown = re.search(r'^(\S+) is not in the (\w+)::(.+?) registry', message)
    if unknown:
        for candidates in registries:
            if candidates.name == unknown[3]:
                close = difflib.get_close_matches(unknown[1], candidates.module_dict, 1)
                hint = f' Did you mean {close[0]}?' if close else ''
                return f'{hint} Known here: {", ".join(sorted(candidates.module_dict))}.'
    return ''


def _arguments(bases: tuple[type, ...]) -> list[str]:
    """Names that a constructor takes, with those that it passes on to the next base."""
    names: list[str] = []
    for base in bases:
        if '__init__' in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            passed_on = [p for p in parameters if p.kind == p.VAR_KEYWORD]
            names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            if not passed_on:
                break
    return names


def _iterating(error: BaseException) -> bool:
    """Whether the error arose in a loop that had completed an iteration."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == 'run' and 'self' in frame.f_locals:
            loop = frame.f_locals['self']
            if getattr(loop, '_iter', 0) > 0:
                return True
    return False

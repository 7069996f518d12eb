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

from mmsparsedit.mim import find_config

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


class ConfigError(ValueError):
    """Something the user wrote that cannot work."""


class Options(argparse.Action):
    """MMEngine's ``DictAction``, imported when an option is given: ``--help`` does not wait."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


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


def load_config(path: str, options: dict | None = None):
    """Read a config, apply ``--cfg-options``, and refuse misspelt top-level keys.

    Args:
        path: a file, or the name of a config of the package (``mmsparsedit.mim``).

    Raises:
        ConfigError: no such file, a syntax error, a key that resembles a known one.
    """
    from mmengine.config import Config

    from mmsparsedit import registry  # noqa: F401, a config may inherit `mmsparsedit::...`

    try:
        found = find_config(path)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    try:
        config = Config.fromfile(found)
        _drop_scope(config._cfg_dict)
        if options:
            config.merge_from_dict(options)
    except (SyntaxError, KeyError, IndexError, FileNotFoundError, ImportError, TypeError) as error:
        raise ConfigError(f'config {path}: {type(error).__name__}: {error}') from error
    check_keys(config, path)
    if config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(path).stem)
    return config


def _drop_scope(part) -> None:
    """Remove the marks that MMEngine leaves where a config inherits ``mmsparsedit::...``.

    They name the scope that holds anyway, and its data loader hands them on to ``collate_fn``.
    """
    if isinstance(part, dict):
        if part.get('_scope_') == 'mmsparsedit':
            del part['_scope_']
        part = list(part.values())
    for inner in part if isinstance(part, list | tuple) else ():
        _drop_scope(inner)


def check_keys(config, path: str) -> None:
    """Refuse a top-level key that nobody reads and that resembles one that somebody does."""
    from mmengine.runner import Runner

    known = set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | EXTRA_KEYS
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


def run_tool(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run a tool; an error of the input ends it with one line on stderr and exit code 2.

    Errors after the first iteration are not the user's: they keep their traceback.
    """
    try:
        main(args)
    except (ValueError, KeyError, TypeError, FileNotFoundError, ImportError) as error:
        if getattr(args, 'traceback', False) or _iterating(error):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        print(f'error: {message}{accepted_names(message)}', file=sys.stderr)
        if not isinstance(error, ConfigError | FileNotFoundError):
            print('(--traceback shows where)', file=sys.stderr)
        sys.stderr.flush()
        sys.exit(2)


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

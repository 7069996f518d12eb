"""Configs from files: which of them run as code, which values and keys are refused.

A config in Python is a program: reading it runs it. Whatever the format, a config also names the
classes that are built from it, so one from somebody else is to be trusted like a program. Two
exceptions: YAML is read without the tags that call functions, and ``recorded_config`` reads the
config that a run left in its folder as data.
"""

import ast
import difflib
import math
import numbers
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsparsedit.mim import find_config

# keys of parts that MMEngine reads by ``get``, so that it passes over misspelt ones
KNOWN_KEYS = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'optim_wrapper.clip_grad': {
        'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value',
    },
}  # fmt: skip


class ConfigError(ValueError):
    """Something the user wrote that cannot work."""


def read_config(path: str | os.PathLike):
    """The config of a file, or of a name of the package. A ``.py`` runs; YAML calls nothing.

    Raises:
        ConfigError: no such file, or whatever goes wrong inside of it.
    """
    from mmengine.config import Config

    from mmsparsedit import registry  # noqa: F401, a config may inherit `mmsparsedit::...`

    try:
        found = find_config(path)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    try:
        with plain_yaml():
            config = Config.fromfile(found)
    except Exception as error:  # a config is a program
        raise ConfigError(f'config {path}: {type(error).__name__}: {error}') from error
    _drop_scope(config._cfg_dict)
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


def merge_options(config, options: Mapping | None, path: str) -> None:
    """Apply ``--cfg-options`` to a config in place."""
    try:
        config.merge_from_dict(dict(options or {}))
    except Exception as error:  # keys below a value, an index of a list that is no number, ...
        raise ConfigError(f'config {path}: {type(error).__name__}: {error}') from error


@contextmanager
def plain_yaml() -> Iterator[None]:
    """MMEngine reads YAML meanwhile as plain values; by itself it obeys ``!!python/object``."""
    import yaml
    from mmengine.fileio.handlers import YamlHandler, file_handlers

    class PlainYaml(YamlHandler):
        def load_from_fileobj(self, file, **kwargs):
            return yaml.safe_load(file)

    before = {ending: file_handlers[ending] for ending in ('yaml', 'yml')}
    file_handlers.update(dict.fromkeys(before, PlainYaml()))
    try:
        yield
    finally:
        file_handlers.update(before)


def recorded_config(path: str | os.PathLike):
    """The config that MMEngine wrote into the folder of a run, read as data: nothing runs.

    Raises:
        ConfigError: no file; one that holds more than values, or a value that is not plain.
    """
    from mmengine.config import Config

    values = {}
    try:
        for statement in ast.parse(Path(path).read_bytes()).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = _value(value)
                case _:
                    raise ValueError(f'line {statement.lineno} is no assignment')
        return Config(values, filename=str(path))
    except (OSError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f'{path} is not the config of a run as MMEngine records it ({error}), and was not '
            'executed. Name the work dir of a run of this package.'
        ) from error


def _value(node: ast.expr) -> Any:
    """Of an expression made of constants, lists, tuples, sets, dicts and ``dict(...)``."""
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=entries):
            if all(entry.arg for entry in entries):
                return {entry.arg: _value(entry.value) for entry in entries}
        case ast.Call(func=ast.Name(id='float'), args=[ast.Constant(value=str(text))], keywords=[]):
            return float(text)
        case ast.Name(id='inf' | 'nan' as name):  # as Python writes them
            return float(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.Dict(keys=keys, values=entries) if None not in keys:
            return {_value(k): _value(v) for k, v in zip(keys, entries, strict=True)}
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_value(item) for item in items}
        case ast.Constant(value=value):
            return value
    raise ValueError(f'line {node.lineno} holds code: {ast.unparse(node)[:60]}')


def check_types(part: Any, where: str) -> None:
    """Refuse classes that are not registered: a registry calls whatever else a name imports.

    Raises:
        ConfigError: e.g. ``type='os.system'``.
    """
    if isinstance(part, Mapping):
        kind = part.get('type')
        if isinstance(kind, str) and kind.split('.')[-1] not in _registered().get(kind, ()):
            raise ConfigError(
                f'{where} names the type {kind!r}, which this package and MMEngine do not have: '
                'building it would run what it names.'
            )
        part = list(part.values())
    for inner in part if isinstance(part, list | tuple) else ():
        check_types(inner, where)


def _registered() -> dict[str, tuple[str, ...]]:
    """Every name that a registry knows, bare or with the module of its class."""
    from mmengine.registry import Registry

    from mmsparsedit import registry

    names: dict[str, tuple[str, ...]] = {}
    for own in vars(registry).values():
        while isinstance(own, Registry):
            own.import_from_location()
            for name, kind in own.module_dict.items():
                bare = name.split('.')[-1]
                names[name] = names[f'{own.scope}.{name}'] = (bare,)
                names[f'{kind.__module__}.{kind.__name__}'] = (kind.__name__,)
            own = own.parent
    return names


def check_given(config: Mapping, options: Mapping | None, known: set[str], path: str) -> None:
    """Refuse a top-level key of ``--cfg-options`` that the config lacks and nobody reads.

    Args:
        config: before the options.
    """
    for option in options or ():
        key = option.split('.')[0]
        if key not in config and key not in known:
            close = difflib.get_close_matches(key, {*known, *config}, n=1)
            meant = [name for name in _dotted(config) if name.endswith(f'.{key}')][:3]
            hint = f': did you mean {" or ".join(map(repr, meant or close))}?'
            raise ConfigError(
                f'--cfg-options {option}: config {path} has no key {key!r} and nothing reads it'
                f'{hint if meant or close else "."}'
            )


def _dotted(part: Mapping, prefix: str = '') -> Iterator[str]:
    for key, value in part.items():
        yield f'{prefix}{key}'
        if isinstance(value, Mapping):
            yield from _dotted(value, f'{prefix}{key}.')


def check_parts(config: Mapping, path: str) -> None:
    """Refuse keys and values that nothing else looks at before they do harm or nothing."""
    for place, known in KNOWN_KEYS.items():
        part = _at(config, place)
        for key in part if isinstance(part, Mapping) else ():
            if key not in known:
                raise ConfigError(
                    f'config {path}: key {place}.{key} is unknown, nothing would read it. Known: '
                    f'{", ".join(sorted(known))}.'
                )
    for place, (accepted, expected) in VALUES.items():
        value = _at(config, place)
        if value is not None and not accepted(value):
            raise ConfigError(f'config {path}: {place} is {value!r}, expected {expected}.')


def _at(config: Mapping, place: str) -> Any:
    part: Any = config
    for key in place.split('.'):
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    def accepted(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return accepted, f'a whole number from {low}'


def _positive(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value) and value > 0


VALUES = {
    'train_cfg.max_iters': _whole(1),
    'train_cfg.max_epochs': _whole(1),
    'train_cfg.val_interval': _whole(1),
    **{f'{part}_dataloader.batch_size': _whole(1) for part in ('train', 'val', 'test')},
    **{f'{part}_dataloader.num_workers': _whole(0) for part in ('train', 'val', 'test')},
    'extract.batch_size': _whole(1),
    'extract.num_workers': _whole(0),
    'optim_wrapper.accumulative_counts': _whole(1),
    'optim_wrapper.clip_grad.max_norm': (_positive, 'a finite number above 0'),
    'default_hooks.logger.interval': _whole(1),
    'default_hooks.checkpoint.interval': (
        lambda value: _whole(1)[0](value) or value == -1,
        'a whole number from 1, or -1 for none',
    ),
}

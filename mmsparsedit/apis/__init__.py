"""Entry points for scripts and notebooks; each name is imported when it is first asked for.

The tools read their command line through this package: ``--help`` must not wait for the networks.
"""

import importlib

from .stack import import_stack

_PLACES = {
    'DiffusionInferencer': '.inferencer',
    'choose_sampler': '.inference',
    'generate': '.inference',
    'get_config': '.inference',
    'get_model': '.inference',
    'init_model': '.inference',
}
__all__ = [
    'DiffusionInferencer',
    'choose_sampler',
    'generate',
    'get_config',
    'get_model',
    'init_model',
]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import_stack()  # before what imports MMEngine
    return getattr(importlib.import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

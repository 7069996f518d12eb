"""MMEngine imported without the library that it asks for one optimizer."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec


def import_stack() -> None:
    """Import ``mmengine.optim``, but not transformers, which it loads to register Adafactor.

    With peft and accelerate behind it that is most of a tool's start. ``Adafactor`` stays a name
    that configs may use; transformers is then imported when the optimizer is built. Does nothing
    where either library is imported already.
    """
    if 'mmengine.optim' in sys.modules or 'transformers' in sys.modules:
        return
    sys.modules['transformers'] = None  # Python's mark of a module that is not to be found
    try:
        import mmengine.optim  # noqa: F401
    finally:
        del sys.modules['transformers']
    if find_spec('transformers') is not None:
        from mmengine.registry import OPTIMIZERS

        OPTIMIZERS.register_module(name='Adafactor', module=_adafactor)


def _adafactor(params: Iterable, **options):
    from transformers import Adafactor

    return Adafactor(params, **options)

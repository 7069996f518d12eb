"""All modules of the package in MMEngine's registries, as ``mmengine.hub.get_model`` asks for."""

import importlib

PACKAGES = ('datasets', 'diffusion', 'engine', 'evaluation', 'models', 'prune')


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import what registers modules; a config with ``default_scope`` needs no such call.

    Args:
        init_default_scope: names without a prefix are then looked up in this package first.
    """
    for package in PACKAGES:
        importlib.import_module(f'mmsparsedit.{package}')
    if init_default_scope:
        from mmengine.registry import init_default_scope as use_scope

        use_scope('mmsparsedit')

"""The configs, metafiles and tools that come with the package, wherever it is installed.

They lie in ``mmsparsedit/.mim``, where MMEngine and MIM look for those of a package: copied into
the wheel, and links to the repository's own folders in a source tree. Only the standard library is
imported here, so that a config or a command line finds them at once.
"""

import difflib
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds ``configs``, ``tools`` and ``model-index.yml``.

    Raises:
        FileNotFoundError: neither the package nor a repository around it holds them.
    """
    for folder in (PACKAGE / '.mim', PACKAGE.parent):
        if (folder / 'configs' / '_base_').is_dir():
            return folder
    raise FileNotFoundError(
        f'{PACKAGE} was installed without its configs: install mmsparsedit again from a wheel or '
        'from the repository.'
    )


def config_names() -> list[str]:
    """Configs of the package below its folder of configs, such as ``sparsedit/digits.py``."""
    folder = root() / 'configs'
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(p.relative_to(folder).as_posix() for p in found if p.suffix == '.py')


def config_path(name: str) -> str:
    """Absolute path of a config of the package.

    A project elsewhere inherits by ``_base_ = 'mmsparsedit::sparsedit/digits.py'`` once
    ``mmsparsedit.registry`` is imported, as the commands do, and everywhere by
    ``_base_ = __import__('mmsparsedit').config_path('sparsedit/digits.py')``.

    Args:
        name: ``sparsedit/digits.py``; ``mmsparsedit::`` or ``configs/`` before it and a missing
            ``.py`` make no difference.

    Raises:
        FileNotFoundError: no such config; those that resemble it are named.
    """
    plain = name.removeprefix('mmsparsedit::').removeprefix('./').removeprefix('configs/')
    plain = plain if plain.endswith('.py') else f'{plain}.py'
    path = root() / 'configs' / plain
    if not path.is_file() or '..' in Path(plain).parts:
        known = [known for known in config_names() if not known.startswith('_base_')]
        close = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
        raise FileNotFoundError(
            f'the package has no config {name!r}: '
            + (f'did you mean {" or ".join(close)}?' if close else f'it has {", ".join(known)}.')
        )
    return str(path.resolve())


def find_config(name: str | os.PathLike) -> str:
    """A config file as given, else the package's config of that name.

    Raises:
        FileNotFoundError: neither is there.
    """
    name = os.fspath(name)
    if os.path.isfile(name):
        return name
    try:
        return config_path(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'config {name!r} does not exist, and {error}') from None


def tool_path(name: str) -> Path:
    """Absolute path of a tool such as ``analysis_tools/get_flops.py``.

    Raises:
        FileNotFoundError: the package has none of that name.
    """
    path = root() / 'tools' / name
    if not path.is_file():
        raise FileNotFoundError(f'this version of mmsparsedit has no tools/{name}.')
    return path.resolve()

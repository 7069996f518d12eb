"""Reading and writing checkpoint files without running what they contain."""

import argparse
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsparsedit.utils.files import atomic_write

SAFETENSORS = '.safetensors'
TENSOR_FILES = ('.pt', '.pth', SAFETENSORS)


def read_checkpoint(source: str | os.PathLike, map_location: str | torch.device = 'cpu') -> Any:
    """Contents of a checkpoint: tensors and plain containers.

    Args:
        source: path of a ``.pt``, ``.pth`` or ``.safetensors`` file, a URL of one, or a folder in
            diffusers' layout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that would need to run code to be read.
    """
    source = os.fspath(source)
    if source.startswith(('http://', 'https://')):
        source = _download(source)
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {source!r} does not exist. Give the path of a {", ".join(TENSOR_FILES)} '
            "file, a folder in diffusers' layout, or a URL."
        )
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path, map_location)
    return _read_torch(path, map_location)


def _read_torch(path: Path, map_location: str | torch.device) -> Any:
    try:
        # DiT's own training files carry the parsed arguments of the command line
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        needed = getattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', None)
        names = needed(path) if needed and zipfile.is_zipfile(path) else []
        if names:
            raise ValueError(
                f'checkpoint {path} was not read: it holds objects of {names}, and reading those '
                'would run code from the file. If you trust it, load it once with '
                'torch.load(..., weights_only=False), save its state_dict alone, and use that.'
            ) from error
        raise ValueError(f'checkpoint {path} cannot be read: {_first_line(error)}') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f'checkpoint {path} is damaged or no PyTorch file ({_first_line(error)}). Copy or '
            'download it again and compare its size.'
        ) from error


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=str(map_location))
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f'checkpoint {path} is damaged or no safetensors file ({_first_line(error)}). Copy or '
            'download it again and compare its size.'
        ) from error


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """A diffusers folder: one weights file, or shards listed by an index."""
    if (folder / 'transformer').is_dir():
        folder = folder / 'transformer'
    stem = 'diffusion_pytorch_model'
    index = folder / f'{stem}{SAFETENSORS}.index.json'
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        state: dict[str, Tensor] = {}
        for name in files:
            state.update(read_checkpoint(folder / name))
        return state
    for name in (f'{stem}{SAFETENSORS}', f'{stem}.bin'):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise FileNotFoundError(
        f"folder {folder} holds no {stem}{SAFETENSORS}: expected a transformer in diffusers' "
        'layout. Give the folder of the transformer, or of the pipeline around it.'
    )


def _download(url: str) -> str:
    """Local copy of a URL in torch's cache of checkpoints."""
    target = Path(torch.hub.get_dir()) / 'checkpoints' / url.rsplit('/', 1)[-1].split('?')[0]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target))
    return str(target)


def write_checkpoint(checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Write tensors and plain containers, whole or not at all.

    A crash leaves the old file or the new one. It streams: no second copy of the weights is held in
    memory.
    """
    with atomic_write(path) as partial:
        if Path(path).suffix == SAFETENSORS:
            from safetensors.torch import save_file

            save_file({key: value.contiguous() for key, value in checkpoint.items()}, partial)
        else:
            torch.save(checkpoint, partial)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

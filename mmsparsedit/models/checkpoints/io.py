"""Reading and writing checkpoint files without running what they contain."""

import argparse
import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor

from mmsparsedit.utils.files import atomic_write, first_line, read_json, verify_archive

SAFETENSORS = '.safetensors'
DIGEST_KEY = 'mmsparsedit.sha256'  # of the header's metadata, which other readers pass over
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
    verify_archive(path)
    try:
        # DiT's own training files carry the parsed arguments of the command line
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        names = _unsafe_names(path)
        if names:
            raise ValueError(
                f'checkpoint {path} was not read: it holds objects of {names}, and reading those '
                'would run code from the file. If you trust it, load it once with '
                'torch.load(..., weights_only=False), save its state_dict alone, and use that.'
            ) from error
        raise ValueError(f'checkpoint {path} cannot be read: {first_line(error)}') from error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(
            f'checkpoint {path} is damaged or no PyTorch file ({first_line(error)}). Copy or '
            'download it again and compare its size.'
        ) from error


def _unsafe_names(path: Path) -> list[str]:
    """What a checkpoint names besides tensors and plain containers, as far as it can be read."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a damaged pickle raises anything
        return []


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, 'pt', device=str(map_location)) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
            digest = (file.metadata() or {}).get(DIGEST_KEY)
    except (SafetensorError, ValueError, OSError, RuntimeError) as error:
        raise ValueError(
            f'checkpoint {path} is damaged or no safetensors file ({first_line(error)}). Copy or '
            'download it again and compare its size.'
        ) from error
    if digest is not None and tensors_digest(state) != digest:
        raise ValueError(
            f'checkpoint {path} is damaged: its tensors have another SHA-256 than it says. Copy or '
            'download it again.'
        )
    return state


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, by name."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """A diffusers folder: one weights file, or shards listed by an index."""
    if (folder / 'transformer').is_dir():
        folder = folder / 'transformer'
    stem = 'diffusion_pytorch_model'
    index = folder / f'{stem}{SAFETENSORS}.index.json'
    if index.is_file():
        weights = read_json(index, advice='Copy the folder again.').get('weight_map')
        files = set(weights.values()) if isinstance(weights, dict) else {None}
        if not all(isinstance(name, str) and Path(name).name == name for name in files):
            raise ValueError(f'{index} is damaged: expected weight_map, names of files beside it.')
        state: dict[str, Tensor] = {}
        for name in sorted(files):
            state.update(read_checkpoint(folder / name))
        if state.keys() != weights.keys():
            differing = sorted(state.keys() ^ weights.keys())
            raise ValueError(f'{folder}: {index.name} and its files differ in {differing[:3]}.')
        return state
    for name in (f'{stem}{SAFETENSORS}', f'{stem}.bin'):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise FileNotFoundError(
        f"folder {folder} holds no {stem}{SAFETENSORS}: expected a transformer in diffusers' "
        'layout. Give the folder of the transformer, or of the pipeline around it.'
    )


def _download(url: str) -> str:
    """Local copy of a URL in torch's cache of checkpoints, under a name of its own."""
    name = Path(unquote(urlsplit(url).path)).name
    unique = hashlib.sha256(url.encode()).hexdigest()[:12]  # addresses may end in the same name
    target = Path(torch.hub.get_dir()) / 'checkpoints' / f'{unique}-{name}'
    if not target.is_file():
        try:
            with atomic_write(target) as beside:
                torch.hub.download_url_to_file(url, str(beside))
        except (OSError, HTTPException, ValueError, RuntimeError) as error:
            raise OSError(
                f'checkpoint {url} cannot be fetched ({first_line(error)}). Check the address and '
                'the network, or fetch it by other means and give its path.'
            ) from error
    return str(target)


def write_checkpoint(checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Write tensors and plain containers, whole or not at all.

    A crash leaves the old file or the new one. It streams: no second copy of the weights is held in
    memory.

    Raises:
        OSError: a full disk, no such right.
    """
    with atomic_write(path) as beside:
        if Path(path).suffix == SAFETENSORS:
            _write_safetensors(checkpoint, beside)
        else:
            # an open file: given a path, torch does not say what the system refused, and writes
            # the name of the part into it
            with open(beside, 'wb') as file:
                torch.save(checkpoint, file)


def _write_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in state.items()}
    try:
        save_file(state, path, metadata={'format': 'pt', DIGEST_KEY: tensors_digest(state)})
    except SafetensorError as error:
        number = re.search(r'os error (\d+)', str(error))
        raise OSError(int(number[1]) if number else 0, first_line(error), str(path)) from error

"""What the checks against public repositories share: their import, their weights, the deviation."""

import contextlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Deviation:
    """A row: max |ours - theirs| / max |theirs| of everything that was compared."""

    part: str
    value: float


def deviation(part: str, *pairs: tuple) -> Deviation:
    """Of pairs (ours, theirs), tensors, arrays or numbers of one shape."""
    worst = 0.0
    for ours, theirs in pairs:
        ours, theirs = (torch.as_tensor(value).double() for value in (ours, theirs))
        if ours.shape != theirs.shape:
            raise ValueError(f'{part}: shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}')
        if not (ours.isfinite().all() and theirs.isfinite().all()):
            raise ValueError(f'{part}: not finite, nothing is compared')
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item())
    return Deviation(part, worst)


def check_repository(path: str, option: str, file: str) -> Path:
    """The folder of a repository.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a folder without the file that the check needs.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f'{option} {path}: no such folder. Give a checkout.')
    if not (folder / file).is_file():
        raise ValueError(f'{option} {path}: expected {file} in it. Give the root of a checkout.')
    return folder


def commit_of(folder: Path) -> str:
    """The commit of a checkout, with a mark if its Python files differ from it."""

    def git(*arguments: str) -> str:
        command = ['git', '-C', str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=no', '--', '*.py')
        return git('rev-parse', '--short=12', 'HEAD') + (', changed' if changed else '')
    except (subprocess.CalledProcessError, FileNotFoundError):
        return 'unknown: not a git checkout'


@contextlib.contextmanager
def importing_from(folder: Path, **stubs: ModuleType | None) -> Iterator:
    """``importlib.import_module`` for the files of a repository, which several name alike.

    Args:
        stubs: modules by name (``__`` for a dot) put in the place of what cannot be installed;
            None keeps a real one.
    """
    before, missing = dict(sys.modules), object()
    replaced = {name.replace('__', '.'): stub for name, stub in stubs.items() if stub is not None}
    saved = {name: sys.modules.get(name, missing) for name in replaced}
    sys.path.insert(0, str(folder))
    sys.modules.update(replaced)
    importlib.invalidate_caches()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield importlib.import_module
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - set(before):
            file = getattr(sys.modules[name], '__file__', None) or ''
            place = [file, *map(str, getattr(sys.modules[name], '__path__', ()))]
            if any(each.startswith(f'{folder}/') for each in place):
                del sys.modules[name]
        for name, module in saved.items():
            if module is missing:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def randomise(network: nn.Module, fixed: tuple[str, ...] = (), std: float = 0.1) -> nn.Module:
    """Random weights everywhere but in fixed tables: what starts at zero would hide an error."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name not in fixed:
                weight.copy_(torch.randn(weight.shape, generator=draw) * std)
    return network.eval()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stub(name: str, **members) -> ModuleType:
    """A module of a few names."""
    module = ModuleType(name)
    vars(module).update(members)
    return module


def xformers_stub() -> dict[str, ModuleType]:
    """Its attention by torch's: (B, M, heads, K), and blocks of several sequences in one row."""

    def attention(q, k, v, p=0.0, attn_bias=None):
        mask = attn_bias
        if isinstance(attn_bias, tuple):
            rows, columns = (
                torch.repeat_interleave(torch.arange(len(n)), torch.tensor(n)) for n in attn_bias
            )
            mask = rows[:, None] == columns
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    blocks = SimpleNamespace(from_seqlens=lambda q, kv: (q, kv))
    fmha = SimpleNamespace(BlockDiagonalMask=blocks)
    ops = stub('xformers.ops', memory_efficient_attention=attention, fmha=fmha)
    return dict(xformers=stub('xformers', ops=ops), xformers__ops=ops)

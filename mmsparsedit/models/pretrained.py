"""Frozen models of other people's libraries: found early, loaded late, shared by all copies."""

import hashlib
from pathlib import Path

import torch
from torch import nn

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


class Pretrained:
    """A folder of weights in the layout of diffusers or transformers, or the name of a local copy.

    Not an ``nn.Module``: an EMA of the model does not copy it and checkpoints do not store it.

    Args:
        pretrained: folder with ``config.json`` and weights, a folder that holds that one as
            ``subfolder``, or an ``owner/name`` of which this machine has a copy.
        local_files_only: False lets the library download a model that is not on this machine.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder but is none or holds no model: a
            library would ask a hub for it, and wait.
    """

    library: str
    wanted: str  # what to set ``pretrained`` to

    def __init__(
        self, pretrained: str, local_files_only: bool, subfolder: str | None = None
    ) -> None:
        self.pretrained = str(pretrained)
        self.local_files_only = local_files_only
        self.subfolder = subfolder
        self._check_folder()

    @property
    def folder(self) -> Path:
        """Where the model lies if ``pretrained`` is a folder."""
        return Path(self.pretrained, self.subfolder or '')

    def _check_folder(self) -> None:
        parts = self.pretrained.split('/')
        is_name = len(parts) == 2 and all(parts) and parts[0] not in ('.', '..', '~')
        if self.folder.is_dir():
            if not (self.folder / 'config.json').is_file():
                raise FileNotFoundError(
                    f'{type(self).__name__}: {str(self.folder)!r} holds no config.json, so no '
                    f'model of {self.library}. Set pretrained to {self.wanted}.'
                )
        elif not is_name or Path(self.pretrained).exists():
            raise FileNotFoundError(self._absent())

    def _absent(self) -> str:
        return (
            f'{type(self).__name__}: there is no folder {str(self.folder)!r} and no such model in '
            f'the local cache of {self.library}. Set pretrained to {self.wanted}, or '
            'local_files_only=False to download a model by name.'
        )

    def check(self) -> None:
        """Raise now the error that a missing model would raise at first use; loads nothing.

        Construction accepts a name that is not on this machine, because training from stored
        latents or features never uses it. Call this before long work that ends in using it.
        """
        self._check_folder()
        if self.local_files_only and not Path(self.pretrained).is_dir():
            from huggingface_hub import try_to_load_from_cache

            config = '/'.join(filter(None, (self.subfolder, 'config.json')))
            if not isinstance(try_to_load_from_cache(self.pretrained, config), str):
                raise FileNotFoundError(self._absent())

    def unreadable(self, error: Exception, what: str) -> Exception:
        """The error to raise where the library found no ``what``."""
        reason = str(error).splitlines()[0]
        if Path(self.pretrained).is_dir():
            return ValueError(
                f'{type(self).__name__}: the folder {self.pretrained!r} holds no {what} that '
                f'{self.library} can read: {reason} Copy the whole folder again.'
            )
        return FileNotFoundError(f'{self._absent()} ({self.library}: {reason})')

    def not_installed(self) -> ImportError:
        return ImportError(
            f'{type(self).__name__} needs {self.library}: pip install "mmsparsedit[diffusers]"'
        )

    def __deepcopy__(self, memo: dict) -> 'Pretrained':
        """Itself: frozen weights are shared by every copy of the model that holds it."""
        return self


def weights_digest(model: nn.Module, sha=None) -> str:
    """SHA-256 over names, shapes and bytes of weights, the same for any file format."""
    sha = sha or hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}\n'.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()

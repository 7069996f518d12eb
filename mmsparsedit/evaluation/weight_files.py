"""Finding the weight files of feature extractors, and saying how to get them when missing."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch

from mmsparsedit.utils.files import atomic_write, check_digest, sha256_of


@dataclass(frozen=True)
class WeightFile:
    """A file that users fetch once: its name, where it comes from, what it is, its SHA-256."""

    name: str
    url: str
    what: str
    digest: str


# torch-fidelity gives out pytorch-fid's file under another name; the SHA-256 begins with what both
# names end in
_INCEPTION_DIGEST = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
# Inception graph of 2015-12-05, from torch-fidelity, and the same weights from pytorch-fid
INCEPTION_FILES = (
    WeightFile(
        'weights-inception-2015-12-05-6726825d.pth',
        'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
        'weights-inception-2015-12-05-6726825d.pth',
        'Inception of 2015-12-05, converted by torch-fidelity',
        _INCEPTION_DIGEST,
    ),
    WeightFile(
        'pt_inception-2015-12-05-6726825d.pth',
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
        'pt_inception-2015-12-05-6726825d.pth',
        'Inception of 2015-12-05, converted by pytorch-fid',
        _INCEPTION_DIGEST,
    ),
)
# I3D trained on Kinetics-400 as TorchScript, from StyleGAN-V
I3D_FILES = (
    WeightFile(
        'i3d_torchscript.pt',
        'https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1',
        'I3D as TorchScript, from StyleGAN-V',
        'bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2',
    ),
)


def search_folders() -> list[Path]:
    """Folders looked through for weights: ``./checkpoints``, then torch.hub's folder."""
    return [Path('checkpoints'), Path(torch.hub.get_dir()) / 'checkpoints']


def find_weights(
    path: str | os.PathLike | None, files: tuple[WeightFile, ...], download: bool = False
) -> Path:
    """Path of a weight file: ``path`` itself, or the first of ``files`` in the search folders.

    Args:
        download: without a path and a find, fetch the first of ``files`` to torch.hub's folder.

    Raises:
        FileNotFoundError: names the files, the folders and the addresses.
    """
    folders = search_folders()
    looked = [folder / file.name for folder in folders for file in files]
    if path is not None:
        looked = [Path(path)]
    for candidate in looked:
        if candidate.is_file():
            return candidate
    names = ' or '.join(file.name for file in files)
    places = ', '.join(str(place) for place in looked)
    sources = '; '.join(f'{file.what}: {file.url}' for file in files)
    message = (
        f'got no weights, expected {names}: looked for {places}. Fetch the file and put it there '
        f'or pass its path ({sources}). No other network is used in its place'
    )
    if path is not None or not download:
        raise FileNotFoundError(message)
    target = folders[-1] / files[0].name
    try:
        with atomic_write(target) as beside:
            torch.hub.download_url_to_file(files[0].url, str(beside))
            check_digest(beside, files[0].digest, f'It came from {files[0].url}: try again.')
    except (URLError, OSError) as error:
        raise FileNotFoundError(f'{message}. The download failed: {error}') from error
    return target


def check_weights(
    path: Path, files: tuple[WeightFile, ...], digest: str | None, runs_code: bool = False
) -> str:
    """The SHA-256 of a weight file, which must be the given one, or else the published one.

    Args:
        digest: that the user expects; None for the one of the file of this name in ``files``.
        runs_code: a file that is neither given nor published is refused, since loading it hands it
            control. Otherwise one of another name passes: it is read as tensors alone.

    Raises:
        ValueError: another SHA-256; with both, and how to consent.
    """
    published = [file.digest for file in files if runs_code or file.name == path.name]
    expected = digest or (published[0] if published else None)
    if expected is None:
        return sha256_of(path)
    advice = 'Fetch the file again'
    if digest is None:
        advice = (
            f'Expected is the published {files[0].name}. Fetch it again; if you mean your own file'
            f'{", which runs as code," if runs_code else ""} pass its SHA-256 (sha256=..., '
            '--weights-sha256)'
        )
    return check_digest(path, expected, f'{advice}.')

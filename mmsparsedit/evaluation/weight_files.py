"""Finding the weight files of feature extractors, and saying how to get them when missing."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch


@dataclass(frozen=True)
class WeightFile:
    """A file that users fetch once: its name, where it comes from, what it is."""

    name: str
    url: str
    what: str


# Inception graph of 2015-12-05, from torch-fidelity, and the same weights from pytorch-fid
INCEPTION_FILES = (
    WeightFile(
        'weights-inception-2015-12-05-6726825d.pth',
        'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
        'weights-inception-2015-12-05-6726825d.pth',
        'Inception of 2015-12-05, converted by torch-fidelity',
    ),
    WeightFile(
        'pt_inception-2015-12-05-6726825d.pth',
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
        'pt_inception-2015-12-05-6726825d.pth',
        'Inception of 2015-12-05, converted by pytorch-fid',
    ),
)
# I3D trained on Kinetics-400 as TorchScript, from StyleGAN-V
I3D_FILES = (
    WeightFile(
        'i3d_torchscript.pt',
        'https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1',
        'I3D as TorchScript, from StyleGAN-V',
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
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(files[0].url, str(target))
    except (URLError, OSError) as error:
        raise FileNotFoundError(f'{message}. The download failed: {error}') from error
    return target

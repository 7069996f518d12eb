"""Samples to look at: PNG, mp4 and GIF files, labelled grids, contact sheets."""

from .pictures import METADATA_KEY, labelled_grid, read_request, save_image
from .videos import CODECS, contact_sheet, save_gif, save_mp4

__all__ = [
    'CODECS',
    'METADATA_KEY',
    'contact_sheet',
    'labelled_grid',
    'read_request',
    'save_gif',
    'save_image',
    'save_mp4',
]

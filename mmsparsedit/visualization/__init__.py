"""Samples to look at: PNG, mp4 and GIF files, labelled grids, contact sheets."""

from .live import show_picture
from .pictures import (
    METADATA_KEY,
    is_grid,
    labelled_grid,
    read_request,
    save_figure,
    save_grid,
    save_image,
    under_headings,
)
from .videos import CODECS, VIEW_WIDTH, contact_sheet, save_gif, save_mp4

__all__ = [
    'CODECS',
    'METADATA_KEY',
    'VIEW_WIDTH',
    'contact_sheet',
    'is_grid',
    'labelled_grid',
    'read_request',
    'save_figure',
    'save_grid',
    'save_gif',
    'save_image',
    'save_mp4',
    'show_picture',
    'under_headings',
]

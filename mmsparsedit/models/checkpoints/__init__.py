"""Checkpoints: reading and writing files, layouts of weights, loading with an account."""

from .canonical import Canonical, in_layer, key_of
from .io import TENSOR_FILES, read_checkpoint, write_checkpoint
from .layouts import (
    OWN,
    KeyTable,
    Layout,
    heads,
    read_blocks,
    read_segments,
    write_blocks,
)
from .load import LoadReport, export_weights, load_pretrained

__all__ = [
    'OWN',
    'TENSOR_FILES',
    'Canonical',
    'KeyTable',
    'Layout',
    'LoadReport',
    'export_weights',
    'heads',
    'in_layer',
    'key_of',
    'load_pretrained',
    'read_blocks',
    'read_checkpoint',
    'read_segments',
    'write_blocks',
    'write_checkpoint',
]

"""Networks, generators and the reading of other people's weights."""

from .autoencoders import DiffusersVAE
from .generators import DiffusionGenerator
from .sparse_dit import SparseDiT
from .sparse_latte import SparseLatte
from .sparse_pixart import SparsePixArt
from .weights import LoadReport, load_pretrained

__all__ = [
    'DiffusersVAE',
    'DiffusionGenerator',
    'LoadReport',
    'SparseDiT',
    'SparseLatte',
    'SparsePixArt',
    'load_pretrained',
]

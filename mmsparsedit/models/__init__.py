"""Networks, generators and the reading of other people's weights."""

from .generators import DiffusionGenerator
from .sparse_dit import SparseDiT
from .weights import LoadReport, load_pretrained

__all__ = ['DiffusionGenerator', 'LoadReport', 'SparseDiT', 'load_pretrained']

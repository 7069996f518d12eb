"""Latte (Ma et al. 2024), dense and sparse: videos, of classes, of captions or of neither."""

from .factorised import FactorisedSDTM
from .generator import JointVideoGenerator
from .sparse_latte import SparseLatte
from .text_to_video import SparseLatteT2V

__all__ = ['FactorisedSDTM', 'JointVideoGenerator', 'SparseLatte', 'SparseLatteT2V']

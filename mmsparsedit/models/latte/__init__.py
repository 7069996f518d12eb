"""Latte (Ma et al. 2024), dense and sparse: videos, with or without classes."""

from .factorised import FactorisedSDTM
from .generator import JointVideoGenerator
from .sparse_latte import SparseLatte

__all__ = ['FactorisedSDTM', 'JointVideoGenerator', 'SparseLatte']

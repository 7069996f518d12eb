"""SiT (Ma et al. 2024), dense and sparse: images of a class by velocity prediction."""

from .sparse_sit import SparseSiT

__all__ = ['SparseSiT']

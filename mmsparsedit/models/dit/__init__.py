"""DiT (Peebles and Xie 2023), dense and sparse: images of a class."""

from .sparse_dit import SparseDiT

__all__ = ['SparseDiT']

"""PixArt-alpha (Chen et al. 2023), dense and sparse: images of a caption."""

from .generator import TextToImageGenerator
from .sparse_pixart import SparsePixArt
from .text_encoders import HashTextEncoder, T5TextEncoder

__all__ = ['HashTextEncoder', 'SparsePixArt', 'T5TextEncoder', 'TextToImageGenerator']

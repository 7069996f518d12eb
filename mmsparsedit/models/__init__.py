"""Networks, generators and the reading of other people's weights."""

from .autoencoders import DiffusersVAE
from .generators import DiffusionGenerator
from .sparse_dit import SparseDiT
from .sparse_latte import SparseLatte
from .sparse_pixart import SparsePixArt
from .text_encoders import HashTextEncoder, T5TextEncoder
from .text_generator import TextToImageGenerator
from .video_generator import JointVideoGenerator
from .weights import LoadReport, load_pretrained

__all__ = [
    'DiffusersVAE',
    'DiffusionGenerator',
    'HashTextEncoder',
    'JointVideoGenerator',
    'LoadReport',
    'SparseDiT',
    'SparseLatte',
    'SparsePixArt',
    'T5TextEncoder',
    'TextToImageGenerator',
    'load_pretrained',
]

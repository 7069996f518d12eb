"""Networks, generators, and the reading of other people's weights.

A base model is a folder of its own, here or in a project; all folders here are imported, so that
their classes are registered.
"""

import importlib
import pkgutil

from .autoencoders import DiffusersVAE
from .checkpoints import LoadReport, load_pretrained
from .dit import SparseDiT
from .fitting import calibration_batches, fit_merges, fit_start, noisy_batches
from .generators import DiffusionGenerator
from .latte import JointVideoGenerator, SparseLatte, SparseLatteT2V
from .patch_pca import PatchPCA
from .pixart import HashTextEncoder, SparsePixArt, T5TextEncoder, TextToImageGenerator

for _found in pkgutil.iter_modules(__path__):
    if _found.ispkg:
        importlib.import_module(f'{__name__}.{_found.name}')

__all__ = [
    'DiffusersVAE',
    'DiffusionGenerator',
    'HashTextEncoder',
    'JointVideoGenerator',
    'LoadReport',
    'PatchPCA',
    'SparseDiT',
    'SparseLatte',
    'SparseLatteT2V',
    'SparsePixArt',
    'T5TextEncoder',
    'TextToImageGenerator',
    'calibration_batches',
    'fit_merges',
    'fit_start',
    'load_pretrained',
    'noisy_batches',
]

"""Sparse models as ``transformer=`` of diffusers' pipelines. Importing it imports diffusers.

>>> from mmsparsedit.diffusers import sparsify
>>> pipe = sparsify(pipe, prune=dict(r_min=0.61, r_max=0.86), num_bottom=2)
"""

try:
    # the loader of pipelines looks in a component's module for the base that says how to load it
    from diffusers import ModelMixin
    from diffusers.hooks._helpers import TransformerBlockRegistry  # noqa: F401
except ImportError as error:
    raise ImportError(
        'mmsparsedit.diffusers needs a diffusers that has caches of blocks (0.42 is tested): pip '
        'install -U diffusers'
    ) from error

from .convert import from_checkpoint
from .dit import SparseDiTTransformer2DModel
from .latte import SparseLatteTransformer3DModel
from .pixart import SparsePixArtTransformer2DModel
from .sparsify import fit_start, recorded_calls, sparsify

__all__ = [
    'ModelMixin',
    'SparseDiTTransformer2DModel',
    'SparseLatteTransformer3DModel',
    'SparsePixArtTransformer2DModel',
    'fit_start',
    'from_checkpoint',
    'recorded_calls',
    'sparsify',
]

for _model in (
    SparseDiTTransformer2DModel,
    SparseLatteTransformer3DModel,
    SparsePixArtTransformer2DModel,
):
    _model.__module__ = __name__  # what model_index.json of a saved pipeline names

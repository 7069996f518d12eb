"""Ways to spare a network's work while it samples, other people's and this project's.

A method (``Acceleration(method=...)``) leaves out parts of some calls of a trajectory; token
merging (``merge=...``) lets layers read fewer tokens. Each runs on dense and sparse networks, under
any sampler, and takes part of a config: none has weights.
"""

from .counting import part_macs
from .deciding import FirstBlockCache, TeaCache
from .layer_cache import FORA, TaylorSeer
from .method import Method, Run
from .residual_cache import ResidualCache
from .token_merging import TokenMerging

__all__ = [
    'FORA',
    'FirstBlockCache',
    'Method',
    'ResidualCache',
    'Run',
    'TaylorSeer',
    'TeaCache',
    'TokenMerging',
    'part_macs',
]

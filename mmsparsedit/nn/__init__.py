"""Building blocks of sparse diffusion transformers."""

from .attention import Attention, PoolingAttention
from .blocks import FinalLayer, PoolingFormerBlock, TransformerBlock, modulate
from .embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    sincos_pos_embed_1d,
    sincos_pos_embed_2d,
)
from .resample import check_grid, pool_tokens, upsample_tokens
from .sdtm import SDTM, TokenRecovery
from .sparse_transformer import SparseTransformer

__all__ = [
    'SDTM',
    'Attention',
    'FinalLayer',
    'LabelEmbedder',
    'PatchEmbed',
    'PoolingAttention',
    'PoolingFormerBlock',
    'SparseTransformer',
    'TimestepEmbedder',
    'TokenRecovery',
    'TransformerBlock',
    'check_grid',
    'modulate',
    'pool_tokens',
    'sincos_pos_embed_1d',
    'sincos_pos_embed_2d',
    'upsample_tokens',
]

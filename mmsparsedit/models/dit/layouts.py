"""How DiT, the authors' SparseDiT and diffusers name DiT's weights.

Sources: checkpoint keys of facebookresearch/DiT and changsn/SparseDiT, diffusers'
DiTTransformer2DModel.
"""

import torch
from torch import Tensor

from mmsparsedit.models.checkpoints import (
    Canonical,
    KeyTable,
    Layout,
    heads,
    in_layer,
    key_of,
    read_blocks,
    read_segments,
    write_blocks,
)

DIT = Layout(
    'dit',
    'blocks.0.attn.qkv...',
    lambda keys: 'blocks' in heads(keys) and not any('scale_shift_table' in key for key in keys),
    read_blocks,
    write_blocks,
)


def _read_authors(state: dict[str, Tensor]) -> Canonical:
    """Generation and recovery keep q and kv apart there; their stack is our qkv."""
    groups = ('token_merge_blocks', 'semantic_blocks', 'token_recover_blocks', 'normal_blocks')
    named = read_segments(state, 'poolingformer_blocks', 'dumbbell_blocks', groups, 'normal_blocks')
    renamed = {'merged_layer1': 'merge_sparse', 'merged_layer2': 'merge_dense'}
    canonical = Canonical()
    for key, value in named.state.items():
        layer, module, weight = in_layer(key)
        sources = named.origin[key]
        if layer is not None and module == 'attn.kv':
            continue  # joins its q
        if layer is not None and module == 'attn.q':
            partner = key_of(layer, 'attn.kv', weight)
            if partner not in named.state:
                raise ValueError(f'checkpoint key {sources[0]} has no kv beside it.')
            value, module = torch.cat([value, named.state[partner]]), 'attn.qkv'
            sources = [*sources, *named.origin[partner]]
        canonical.add(key_of(layer, renamed.get(module, module), weight), value, *sources)
    return canonical


AUTHORS = Layout(
    'sparsedit',
    "poolingformer_blocks.0..., dumbbell_blocks.0... (the authors' SparseDiT)",
    lambda keys: bool(heads(keys) & {'poolingformer_blocks', 'dumbbell_blocks'}),
    _read_authors,
)

_TABLE = KeyTable(
    layers='transformer_blocks',
    outer={
        'pos_embed.proj': 'x_embedder.proj',
        'proj_out_1': 'final_layer.adaLN_modulation.1',
        'proj_out_2': 'final_layer.linear',
    },
    inner={
        'norm1.linear': 'adaLN_modulation.1',
        'attn1.to_out.0': 'attn.proj',
        'ff.net.0.proj': 'mlp.fc1',
        'ff.net.2': 'mlp.fc2',
    },
    stacked={'attn.qkv': ('attn1.to_q', 'attn1.to_k', 'attn1.to_v')},
    tensors={'pos_embed.pos_embed': 'pos_embed'},
    repeated={
        'norm1.emb.timestep_embedder.linear_1': 't_embedder.mlp.0',
        'norm1.emb.timestep_embedder.linear_2': 't_embedder.mlp.2',
        'norm1.emb.class_embedder.embedding_table': 'y_embedder.embedding_table',
    },
)
DIFFUSERS = Layout(
    'diffusers',
    'transformer_blocks.0.norm1.emb... (DiTTransformer2DModel)',
    lambda keys: any('.norm1.emb.' in key for key in keys),
    _TABLE.read,
    _TABLE.write,
    note="diffusers' DiT has other constants than DiT: frequencies of timesteps over 127 "
    'instead of 128, eps 1e-5 instead of 1e-6 in the norm before the MLP. The weights are the '
    'same; SparseDiT(diffusers_numerics=True) gives its outputs.',
)

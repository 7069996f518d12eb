"""How Latte names its weights: as DiT does, layers in space and in time by turns; a frame table.

The text-to-video Latte has PixArt's layers and diffusers' names, in two lists of layers. Sources:
Vchitect/Latte (checkpoint keys), diffusers' LatteTransformer3DModel.
"""

import re

from torch import Tensor

from mmsparsedit.models.checkpoints import (
    Canonical,
    KeyTable,
    Layout,
    heads,
    read_blocks,
    write_blocks,
)

LATTE = Layout(
    'latte',
    'blocks.0.attn.qkv..., temp_embed',
    lambda keys: {'blocks', 'temp_embed'} <= heads(keys),
    read_blocks,
    write_blocks,
)
# an image model to start a video model from
DIT = Layout(
    'dit',
    'blocks.0.attn.qkv... without temp_embed',
    lambda keys: 'blocks' in heads(keys) and not any('scale_shift_table' in key for key in keys),
    read_blocks,
)

_NULL_CAPTION = 'y_embedder.y_embedding'
_TABLE = KeyTable(
    layers='layers',
    outer={
        'pos_embed.proj': 'x_embedder.proj',
        'caption_projection.linear_1': 'y_embedder.y_proj.fc1',
        'caption_projection.linear_2': 'y_embedder.y_proj.fc2',
        'adaln_single.emb.timestep_embedder.linear_1': 't_embedder.mlp.0',
        'adaln_single.emb.timestep_embedder.linear_2': 't_embedder.mlp.2',
        'adaln_single.linear': 't_block.1',
        'proj_out': 'final_layer.linear',
    },
    inner={
        'attn1.to_out.0': 'attn.proj',
        'attn2.to_q': 'cross_attn.q_linear',
        'attn2.to_out.0': 'cross_attn.proj',
        'ff.net.0.proj': 'mlp.fc1',
        'ff.net.2': 'mlp.fc2',
    },
    stacked={
        'attn.qkv': ('attn1.to_q', 'attn1.to_k', 'attn1.to_v'),
        'cross_attn.kv_linear': ('attn2.to_k', 'attn2.to_v'),
    },
    tensors={
        'scale_shift_table': 'final_layer.scale_shift_table',
        'pos_embed.pos_embed': 'pos_embed',
        'temp_pos_embed': 'temp_embed',
    },
    absent={
        _NULL_CAPTION: f'{_NULL_CAPTION}: kept as initialised, because this layout has no null '
        "caption: diffusers' pipeline reads the encoded empty caption."
    },
    recomputed=('pos_embed', 'temp_embed'),
)
_LISTS = ('transformer_blocks', 'temporal_transformer_blocks')  # of layers 0, 2, ..., and 1, 3, ...


def _in_one_list(key: str) -> str:
    """``{list}.{i}.`` as ``layers.{2 i}.`` or ``layers.{2 i + 1}.``."""
    if found := re.match(r'(\w+)\.(\d+)\.', key):
        if found[1] in _LISTS:
            layer = 2 * int(found[2]) + _LISTS.index(found[1])
            return f'layers.{layer}.{key[found.end() :]}'
    return key


def _in_two_lists(key: str) -> str:
    if found := re.match(r'layers\.(\d+)\.', key):
        i, which = divmod(int(found[1]), 2)
        return f'{_LISTS[which]}.{i}.{key[found.end() :]}'
    return key


def _read(state: dict[str, Tensor]) -> Canonical:
    canonical = _TABLE.read({_in_one_list(key): value for key, value in state.items()})
    canonical.origin = {
        key: [_in_two_lists(source) for source in sources]
        for key, sources in canonical.origin.items()
    }
    return canonical


TEXT_TO_VIDEO = Layout(
    'diffusers',
    'transformer_blocks.0..., temporal_transformer_blocks.0... (LatteTransformer3DModel)',
    lambda keys: 'temporal_transformer_blocks' in heads(keys),
    _read,
    lambda weights: {_in_two_lists(key): value for key, value in _TABLE.write(weights).items()},
)

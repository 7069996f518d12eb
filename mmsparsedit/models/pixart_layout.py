"""How diffusers names PixArt-alpha's weights, translated to the layered form and back.

The official ``.pth`` has DiT's names for what DiT has, and this package's for the rest: it is read
like DiT's. Sources: PixArt-alpha/PixArt-alpha (checkpoint keys), diffusers'
PixArtTransformer2DModel.
"""

import re

import torch
from torch import Tensor

from .layered import Layered

NULL_CAPTION = 'y_embedder.y_embedding'
NO_NULL_CAPTION = (
    f'{NULL_CAPTION}: kept as initialised, because this layout has no null caption. For guidance '
    'set null_caption of the generator to the null_caption.npz that extract_text_features.py '
    "writes: the encoded empty caption, which diffusers' pipeline uses."
)

_BLOCK = {
    'attn1.to_out.0': 'attn.proj',
    'attn2.to_q': 'cross_attn.q_linear',
    'attn2.to_out.0': 'cross_attn.proj',
    'ff.net.0.proj': 'mlp.fc1',
    'ff.net.2': 'mlp.fc2',
}
_STACKED = {  # ours -> theirs, stacked in this order
    'attn.qkv': ('attn1.to_q', 'attn1.to_k', 'attn1.to_v'),
    'cross_attn.kv_linear': ('attn2.to_k', 'attn2.to_v'),
}
_OUTER = {
    'pos_embed.proj': 'x_embedder.proj',
    'caption_projection.linear_1': 'y_embedder.y_proj.fc1',
    'caption_projection.linear_2': 'y_embedder.y_proj.fc2',
    'adaln_single.emb.timestep_embedder.linear_1': 't_embedder.mlp.0',
    'adaln_single.emb.timestep_embedder.linear_2': 't_embedder.mlp.2',
    'adaln_single.emb.resolution_embedder.linear_1': 'csize_embedder.mlp.0',
    'adaln_single.emb.resolution_embedder.linear_2': 'csize_embedder.mlp.2',
    'adaln_single.emb.aspect_ratio_embedder.linear_1': 'ar_embedder.mlp.0',
    'adaln_single.emb.aspect_ratio_embedder.linear_2': 'ar_embedder.mlp.2',
    'adaln_single.linear': 't_block.1',
    'proj_out': 'final_layer.linear',
}
_TENSORS = {
    'scale_shift_table': 'final_layer.scale_shift_table',
    'pos_embed.pos_embed': 'pos_embed',
}


def is_diffusers_pixart(state: dict[str, Tensor]) -> bool:
    """Whether a diffusers state dict is PixArt's, not DiT's."""
    return 'adaln_single.linear.weight' in state


def from_diffusers_pixart(state: dict[str, Tensor]) -> Layered:
    """PixArtTransformer2DModel; it has no null caption."""
    layered = Layered(absent={NULL_CAPTION: NO_NULL_CAPTION})
    first = {parts[0]: (ours, parts) for ours, parts in _STACKED.items()}
    later = {part for parts in _STACKED.values() for part in parts[1:]}
    for key, value in state.items():
        module, _, kind = key.rpartition('.')
        match = re.fullmatch(r'transformer_blocks\.(\d+)(?:\.(.+))?', module)
        if key in _TENSORS:
            layered.add(_TENSORS[key], value, key)
        elif module in _OUTER:
            layered.add(f'{_OUTER[module]}.{kind}', value, key)
        elif match is None:
            layered.add(key, value, key)
        elif match[2] is None:  # the block's scale_shift_table
            layered.add(f'layers.{match[1]}.{kind}', value, key)
        elif match[2] in first:
            ours, parts = first[match[2]]
            sources = [f'transformer_blocks.{match[1]}.{part}.{kind}' for part in parts]
            missing = [source for source in sources if source not in state]
            if missing:
                raise ValueError(f'checkpoint keys {missing} are missing beside {key}.')
            stacked = torch.cat([state[source] for source in sources])
            layered.add(f'layers.{match[1]}.{ours}.{kind}', stacked, *sources)
        elif match[2] not in later:
            inner = _BLOCK.get(match[2], match[2])
            layered.add(f'layers.{match[1]}.{inner}.{kind}', value, key)
    return layered


def to_pixart(layered: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layered form of a dense model -> the official state dict."""
    return {re.sub(r'^layers\.', 'blocks.', key): value for key, value in layered.items()}


def to_diffusers_pixart(layered: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layered form of a dense model -> PixArtTransformer2DModel's; the null caption is lost."""
    state = {}
    block = {ours: theirs for theirs, ours in _BLOCK.items()}
    outer = {ours: theirs for theirs, ours in _OUTER.items()}
    for key, value in layered.items():
        module, _, kind = key.rpartition('.')
        match = re.fullmatch(r'layers\.(\d+)(?:\.(.+))?', module)
        if key in ('pos_embed', NULL_CAPTION):
            continue  # the one is recomputed there, the other has no place
        if key == 'final_layer.scale_shift_table':
            state['scale_shift_table'] = value
        elif module in outer:
            state[f'{outer[module]}.{kind}'] = value
        elif match[2] is None:
            state[f'transformer_blocks.{match[1]}.{kind}'] = value
        elif match[2] in _STACKED:
            parts = _STACKED[match[2]]
            for part, rows in zip(parts, value.chunk(len(parts)), strict=True):
                state[f'transformer_blocks.{match[1]}.{part}.{kind}'] = rows.clone()
        else:
            state[f'transformer_blocks.{match[1]}.{block[match[2]]}.{kind}'] = value
    return state

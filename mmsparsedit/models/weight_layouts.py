"""How each known checkpoint names its weights, translated to one layered form and back.

Layered form: every layer is ``layers.{i}`` in depth order, whatever segment it belongs to; inside
it the names of this package (``attn.qkv``, ``attn.v``, ``merge_sparse`` = W1, ``merge_dense`` =
W2). Everything outside layers has DiT's names. A dense and a sparse model of one depth then
differ only in what a layer carries.

C width. Sources: facebookresearch/DiT (checkpoint keys), diffusers' DiTTransformer2DModel, the
authors' SparseDiT.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from .layered import Layered
from .pixart_layout import from_diffusers_pixart, is_diffusers_pixart, to_diffusers_pixart

# -- plain layouts: only prefixes differ ---------------------------------------------------------

_OWN_GROUPS = ('generation', 'sparse', 'recovery', 'dense')
_AUTHORS_GROUPS = (
    'token_merge_blocks',
    'semantic_blocks',
    'token_recover_blocks',
    'normal_blocks',
)


def own_layer_order(keys: Iterable[str]) -> list[str]:
    """Prefixes of the layers of this package's state dict, in depth order."""
    return _segment_order(keys, 'bottom', 'middle', _OWN_GROUPS, 'top')


def authors_layer_order(keys: Iterable[str]) -> list[str]:
    """Prefixes of the layers of the authors' state dict, in depth order."""
    return _segment_order(
        keys, 'poolingformer_blocks', 'dumbbell_blocks', _AUTHORS_GROUPS, 'normal_blocks'
    )


def _segment_order(
    keys: Iterable[str], bottom: str, middle: str, groups: tuple[str, ...], top: str
) -> list[str]:
    found = set()
    for key in keys:
        parts = key.split('.')
        if parts[0] == bottom:
            found.add((0, int(parts[1]), 0, 0, '.'.join(parts[:2])))
        elif parts[0] == middle and parts[2] in groups:
            rank = groups.index(parts[2])
            found.add((1, int(parts[1]), rank, int(parts[3]), '.'.join(parts[:4])))
        elif parts[0] == top:
            found.add((2, int(parts[1]), 0, 0, '.'.join(parts[:2])))
    return [entry[-1] for entry in sorted(found)]


def _rename_layers(state: dict[str, Tensor], prefixes: list[str]) -> Layered:
    layered = Layered()
    layer_of = {prefix: i for i, prefix in enumerate(prefixes)}
    for key, value in state.items():
        for parts in (2, 4):
            prefix, rest = '.'.join(key.split('.')[:parts]), key.split('.')[parts:]
            if prefix in layer_of and rest:
                layered.add(f'layers.{layer_of[prefix]}.{".".join(rest)}', value, key)
                break
        else:
            layered.add(key, value, key)
    return layered


def from_own(state: dict[str, Tensor]) -> Layered:
    return _rename_layers(state, own_layer_order(state))


def from_dit(state: dict[str, Tensor]) -> Layered:
    depth = 1 + max(int(key.split('.')[1]) for key in state if key.startswith('blocks.'))
    return _rename_layers(state, [f'blocks.{i}' for i in range(depth)])


def from_authors(state: dict[str, Tensor]) -> Layered:
    """Generation and recovery keep q and kv apart there; their stack is our qkv."""
    named = _rename_layers(state, authors_layer_order(state))
    layered = Layered()
    merges = {'merged_layer1': 'merge_sparse', 'merged_layer2': 'merge_dense'}
    for key, value in named.state.items():
        match = re.fullmatch(r'(layers\.\d+\.attn\.)(q|kv)(\.\w+)', key)
        if match and match[2] == 'kv':
            continue  # joins its q
        if match:
            partner = f'{match[1]}kv{match[3]}'
            if partner not in named.state:
                raise ValueError(f'checkpoint key {named.origin[key][0]} has no kv beside it.')
            layered.add(
                f'{match[1]}qkv{match[3]}',
                torch.cat([value, named.state[partner]]),
                *named.origin[key],
                *named.origin[partner],
            )
            continue
        for theirs, ours in merges.items():
            key = key.replace(f'.{theirs}.', f'.{ours}.')
        layered.add(key, value, *named.origin.get(key, named.origin.get(_undo(key, merges), [])))
    return layered


def _undo(key: str, merges: dict[str, str]) -> str:
    for theirs, ours in merges.items():
        key = key.replace(f'.{ours}.', f'.{theirs}.')
    return key


# -- diffusers -------------------------------------------------------------------------------------

_DIFFUSERS_BLOCK = {
    'norm1.linear': 'adaLN_modulation.1',
    'attn1.to_out.0': 'attn.proj',
    'ff.net.0.proj': 'mlp.fc1',
    'ff.net.2': 'mlp.fc2',
}
_DIFFUSERS_SHARED = {  # every block carries a copy of these
    'norm1.emb.timestep_embedder.linear_1': 't_embedder.mlp.0',
    'norm1.emb.timestep_embedder.linear_2': 't_embedder.mlp.2',
    'norm1.emb.class_embedder.embedding_table': 'y_embedder.embedding_table',
}
_DIFFUSERS_OUTER = {
    'pos_embed.proj': 'x_embedder.proj',
    'proj_out_1': 'final_layer.adaLN_modulation.1',
    'proj_out_2': 'final_layer.linear',
}


def from_diffusers(state: dict[str, Tensor]) -> Layered:
    """DiTTransformer2DModel; the embedders it repeats in every block must agree."""
    if is_diffusers_pixart(state):
        return from_diffusers_pixart(state)
    layered = Layered()
    for key, value in state.items():
        module, _, kind = key.rpartition('.')
        match = re.fullmatch(r'transformer_blocks\.(\d+)\.(.+)', module)
        if key == 'pos_embed.pos_embed':
            layered.add('pos_embed', value, key)
        elif module in _DIFFUSERS_OUTER:
            layered.add(f'{_DIFFUSERS_OUTER[module]}.{kind}', value, key)
        elif match is None:
            layered.add(key, value, key)
        elif match[2] in _DIFFUSERS_SHARED:
            shared = f'{_DIFFUSERS_SHARED[match[2]]}.{kind}'
            first = f'transformer_blocks.0.{match[2]}.{kind}'
            if match[1] == '0':
                layered.add(shared, value, key)
            elif first not in state or not torch.equal(value, state[first]):
                raise ValueError(
                    f'checkpoint key {key} differs from {first}: DiT has one embedder for all '
                    'blocks, so a model whose blocks were trained apart cannot be represented.'
                )
            else:
                layered.copies.append(key)
        elif match[2] == 'attn1.to_q':
            base = f'transformer_blocks.{match[1]}.attn1'
            sources = [f'{base}.to_{name}.{kind}' for name in 'qkv']
            absent = [source for source in sources if source not in state]
            if absent:
                raise ValueError(f'checkpoint keys {absent} are missing beside {key}.')
            stacked = torch.cat([state[source] for source in sources])
            layered.add(f'layers.{match[1]}.attn.qkv.{kind}', stacked, *sources)
        elif match[2] not in ('attn1.to_k', 'attn1.to_v'):
            inner = _DIFFUSERS_BLOCK.get(match[2], match[2])
            layered.add(f'layers.{match[1]}.{inner}.{kind}', value, key)
    return layered


def to_diffusers(layered: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The layered form of a dense model -> DiTTransformer2DModel's state dict, or PixArt's."""
    if 't_block.1.weight' in layered:
        return to_diffusers_pixart(layered)
    state = {}
    outer = {ours: theirs for theirs, ours in _DIFFUSERS_OUTER.items()}
    shared = {ours: theirs for theirs, ours in _DIFFUSERS_SHARED.items()}
    block = {ours: theirs for theirs, ours in _DIFFUSERS_BLOCK.items()}
    for key, value in layered.items():
        module, _, kind = key.rpartition('.')
        match = re.fullmatch(r'layers\.(\d+)\.(.+)', module)
        if key == 'pos_embed':
            continue  # recomputed there
        if module in outer:
            state[f'{outer[module]}.{kind}'] = value
        elif module in shared:
            for i in range(depth):
                state[f'transformer_blocks.{i}.{shared[module]}.{kind}'] = value.clone()
        elif match[2] == 'attn.qkv':
            for name, part in zip('qkv', value.chunk(3), strict=True):
                base = f'transformer_blocks.{match[1]}.attn1'
                state[f'{base}.to_{name}.{kind}'] = part.clone()
        else:
            state[f'transformer_blocks.{match[1]}.{block[match[2]]}.{kind}'] = value
    return state


def to_dit(layered: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layered form of a dense model -> DiT's state dict, in DiT's order of keys."""
    order = [
        'pos_embed',
        'temp_embed',
        'x_embedder',
        't_embedder',
        'y_embedder',
        'layers',
        'final_layer',
    ]
    block_order = ['attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2', 'adaLN_modulation']

    def position(key: str) -> tuple:
        parts = key.split('.')
        if parts[0] != 'layers':
            last = 'adaLN' in key  # final_layer: linear, then modulation
            return (order.index(parts[0]), 0, int(last))
        inner = next(i for i, name in enumerate(block_order) if name in key)
        return (order.index('layers'), int(parts[1]), inner)

    return {
        re.sub(r'^layers\.', 'blocks.', key): layered[key] for key in sorted(layered, key=position)
    }


READERS = {
    'dit': from_dit,
    'latte': from_dit,  # DiT's names and temp_embed; layers in space and in time by turns
    'pixart': from_dit,  # DiT's names for what DiT has
    'sparsedit': from_authors,
    'diffusers': from_diffusers,
    'mmsparsedit': from_own,
}


def recognise(keys: Iterable[str]) -> str:
    """The layout whose key names these are, or ValueError."""
    keys = set(keys)
    heads = {key.split('.')[0] for key in keys}
    if heads & {'poolingformer_blocks', 'dumbbell_blocks'}:
        return 'sparsedit'
    if 'transformer_blocks' in heads:
        return 'diffusers'
    if 'blocks.0.scale_shift_table' in keys:
        return 'pixart'
    if 'blocks' in heads:
        return 'latte' if 'temp_embed' in heads else 'dit'
    if heads & {'bottom', 'middle', 'top'}:
        return 'mmsparsedit'
    raise ValueError(
        'the checkpoint has none of the known layouts: expected keys such as blocks.0... (DiT), '
        "poolingformer_blocks.0... (the authors' SparseDiT), transformer_blocks.0... "
        f'(diffusers) or top.0... (this package), got {sorted(heads)[:8]}. Name the source, or '
        'convert it.'
    )

"""How PixArt-alpha and diffusers name PixArt's weights.

The official ``.pth`` has DiT's names for what DiT has, and this package's for the rest. Sources:
PixArt-alpha/PixArt-alpha (checkpoint keys), diffusers' PixArtTransformer2DModel.
"""

from mmsparsedit.models.checkpoints import KeyTable, Layout, heads, read_blocks, write_blocks

PIXART = Layout(
    'pixart',
    'blocks.0.scale_shift_table',
    lambda keys: 'blocks.0.scale_shift_table' in keys,
    read_blocks,
    write_blocks,
)

NULL_CAPTION = 'y_embedder.y_embedding'
NO_NULL_CAPTION = (
    f'{NULL_CAPTION}: kept as initialised, because this layout has no null caption. For guidance '
    'set null_caption of the generator to the null_caption.npz that extract_text_features.py '
    "writes: the encoded empty caption, which diffusers' pipeline uses."
)
_TABLE = KeyTable(
    layers='transformer_blocks',
    outer={
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
    },
    absent={NULL_CAPTION: NO_NULL_CAPTION},
)
DIFFUSERS = Layout(
    'diffusers',
    'transformer_blocks.0.attn1..., adaln_single... (PixArtTransformer2DModel)',
    lambda keys: (
        'adaln_single.linear.weight' in keys and 'temporal_transformer_blocks' not in heads(keys)
    ),
    _TABLE.read,
    _TABLE.write,
)

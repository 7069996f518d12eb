"""How SiT names its weights: as DiT does. Source: willisma/SiT (checkpoint keys)."""

from mmsparsedit.models.checkpoints import Layout, heads, read_blocks, write_blocks

SIT = Layout(
    'sit',
    "blocks.0.attn.qkv... (of SiT, whose names are DiT's)",
    lambda keys: 'blocks' in heads(keys) and not any('scale_shift_table' in key for key in keys),
    read_blocks,
    write_blocks,
)

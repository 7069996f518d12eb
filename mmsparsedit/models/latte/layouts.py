"""How Latte names its weights: as DiT does, layers in space and in time by turns; a frame table.

Source: Vchitect/Latte (checkpoint keys).
"""

from mmsparsedit.models.checkpoints import Layout, heads, read_blocks, write_blocks

LATTE = Layout(
    'latte',
    'blocks.0.attn.qkv..., temp_embed',
    lambda keys: {'blocks', 'temp_embed'} <= heads(keys),
    read_blocks,
    write_blocks,
)
# known, and not read: another network
TEXT_TO_VIDEO = Layout(
    'diffusers',
    "diffusers' LatteTransformer3DModel, the text-to-video Latte: its layers in space read a T5 "
    'caption and share one modulation, as in PixArt, so it is another network than the Latte of '
    'classes',
    lambda keys: 'temporal_transformer_blocks' in heads(keys),
    read_blocks,
)
# an image model to start a video model from
DIT = Layout(
    'dit',
    'blocks.0.attn.qkv... without temp_embed',
    lambda keys: 'blocks' in heads(keys) and not any('scale_shift_table' in key for key in keys),
    read_blocks,
)

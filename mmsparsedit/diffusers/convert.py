"""From a config and a checkpoint of this package to a model of diffusers.

The way back needs no conversion: a saved folder, or that of its pipeline, is a checkpoint that
``load_from``, ``init_model`` and ``load_pretrained`` read.
"""

import os

from mmengine.config import Config

from mmsparsedit.apis import init_model
from mmsparsedit.apis.launch import load_config
from mmsparsedit.models import SparseDiT, SparseLatteT2V, SparsePixArt

from .base import SparseTransformerModel
from .dit import SparseDiTTransformer2DModel
from .latte import SparseLatteTransformer3DModel
from .pixart import SparsePixArtTransformer2DModel

_SAME = (
    'patch_size', 'mlp_ratio', 'num_bottom', 'num_sdtm', 'num_top', 'reinject_pos_embed',
    'upsample', 'caption_channels', 'model_max_length', 'recover_order',
)  # fmt: skip


def from_checkpoint(
    config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None
) -> SparseTransformerModel:
    """What ``tools/train.py`` trained, as a transformer for a pipeline.

    Args:
        config: file, or name of one of the package, of the generator: network and prune schedule
            are taken from it.
        checkpoint: anything that ``load_pretrained`` takes; None keeps the initial weights.

    Raises:
        ValueError: a network that has no model of diffusers; weights that do not fit.
    """
    if not isinstance(config, Config):
        config = load_config(os.fspath(config))
    net = init_model(config, checkpoint).network
    rest = dict(config.model.network)
    rest.pop('type')
    options = {name: rest.pop(name) for name in _SAME if name in rest}
    if type(net) is SparseDiT:
        model_class = SparseDiTTransformer2DModel
        options['num_embeds_ada_norm'] = net.num_classes
    elif type(net) is SparsePixArt:
        model_class = SparsePixArtTransformer2DModel
        options['interpolation_scale'] = net.pe_interpolation
        options['use_additional_conditions'] = net.micro_condition
    elif type(net) is SparseLatteT2V:
        model_class = SparseLatteTransformer3DModel
        options['interpolation_scale'] = net.pe_interpolation
        options['video_length'] = net.num_frames
    else:
        raise ValueError(
            f'{type(net).__name__} has no model of diffusers here: SparseDiT, SparsePixArt and '
            'SparseLatteT2V have.'
        )
    video = model_class is SparseLatteTransformer3DModel
    layers_of_a_module = 'num_sparse' if video else 'block_counts'
    heads = rest.pop('num_heads', 16)
    sdtm = rest.get('sdtm') or {}
    if isinstance(sdtm, dict) and set(sdtm) <= {'type', layers_of_a_module}:  # else as it is
        rest.pop('sdtm', None)
        options |= {k: v for k, v in sdtm.items() if k != 'type'}
    for stated in (
        'hidden_size', 'in_channels', 'learn_sigma', 'num_classes', 'pe_interpolation',
        'micro_condition', 'num_frames',
    ):  # fmt: skip
        rest.pop(stated, None)
    if isinstance(rest.get('input_size', 0), int):
        rest.pop('input_size', None)
    prune = config.model.get('prune')
    if prune is not None:
        prune = {key: value for key, value in prune.items() if key != 'type'}
    model = model_class(
        num_attention_heads=heads,
        attention_head_dim=net.hidden_size // heads,
        in_channels=net.in_channels,
        out_channels=net.out_channels,
        sample_size=max(net.input_size),
        prune=prune,
        network_kwargs=rest or None,
        **options,
    )
    model.network.load_state_dict(net.state_dict())
    return model.eval()

"""The Inception network of torch-fidelity and its weights: building, reading, drawing."""

import io
import os
import re

import torch
from torch import Tensor, nn

from mmsparsedit.utils.files import first_line, verify_archive

from .weight_files import INCEPTION_FILES


def build_inception(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's Inception with the given weights, returning pool features and logits.

    Its constructor insists on loading a file; here it is handed an empty one and the weights follow
    afterwards, so that the file of the user is read by ``weights_only`` loading alone.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(
            'FID, sFID, IS, precision and recall need torch-fidelity: pip install '
            '"mmsparsedit[eval]"'
        ) from error

    class LoadedLater(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *args, **kwargs):
            return super().load_state_dict(state_dict, *args, **kwargs) if state_dict else None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):  # the initial weights drawn here are overwritten
        network = LoadedLater(
            'inception-v3-compat', ['2048', 'logits_unbiased'], feature_extractor_weights_path=empty
        )
    if state:
        network.load_state_dict(state)
    return network


def random_inception_weights(seed: int) -> dict[str, Tensor]:
    """State of an Inception with normal weights of variance 2 / fan_in, drawn from ``seed``."""
    state = build_inception({}).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for key, value in state.items():
        if key.endswith(('conv.weight', 'fc.weight')):
            value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
    state['fc.bias'].zero_()
    return state


# layer order of pytorch-fid's InceptionV3 wrapper, whose keys are blocks.<i>.<j>.<rest>
_WRAPPER_BLOCKS = (
    ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', None),
    ('Conv2d_3b_1x1', 'Conv2d_4a_3x3', None),
    tuple(f'Mixed_{name}' for name in ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e')),
    ('Mixed_7a', 'Mixed_7b', 'Mixed_7c', None),
)


def read_inception_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Weights of the Inception of 2015-12-05 under torch-fidelity's key names.

    Reads torch-fidelity's file and pytorch-fid's; of the latter also the layout of its wrapper
    module (``blocks.<i>.<j>``). Auxiliary heads and the counters of batch norm, unused in
    evaluation, may be there or not. Every other key must be accounted for.
    """
    try:
        verify_archive(path)
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(
            f'got {path}, expected the weights of the Inception: damaged, fetch it again '
            f'({first_line(error)})'
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f'got a {type(state).__name__} in {path}, expected a dict of tensors')
    expected = build_inception({}).state_dict()
    given = {_torch_fidelity_key(key): value for key, value in state.items()}
    given = {key: value for key, value in given.items() if not key.startswith('AuxLogits.')}
    for key, value in expected.items():
        if key.endswith('num_batches_tracked'):
            given.setdefault(key, value)
    missing = sorted(expected.keys() - given.keys())
    unknown = sorted(given.keys() - expected.keys())
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}'
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    if missing or unknown or shapes:
        raise ValueError(
            f'got {path} with {len(missing)} keys missing {missing[:3]}, {len(unknown)} unknown '
            f'{unknown[:3]} and {len(shapes)} of another shape {shapes[:3]}, expected the '
            f'Inception of 2015-12-05 with 1008 classes: use {INCEPTION_FILES[0].name}'
        )
    return given


def _torch_fidelity_key(key: str) -> str:
    key = re.sub(r'^(module|model|inception|base)\.', '', key)
    match = re.match(r'blocks\.(\d+)\.(\d+)\.(.+)', key)
    if match is None:
        return key
    block, layer = int(match[1]), int(match[2])
    if block >= len(_WRAPPER_BLOCKS) or layer >= len(_WRAPPER_BLOCKS[block]):
        return key
    return f'{_WRAPPER_BLOCKS[block][layer]}.{match[3]}'

"""Training data as pictures. Letters: F frames, C channels, H x W pixels or cells of a latent."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsparsedit.registry import MODELS
from mmsparsedit.utils.uint8 import to_uint8


def pictures_of(dataset, numbers: Sequence[int], model: dict) -> tuple[list[Tensor], list[str]]:
    """Items of a data set as uint8 (C, H, W) or (F, C, H, W), and what they are labelled with.

    Args:
        model: config of the generator, which knows the size of its data and the autoencoder.
    """
    part = model.get('autoencoder')
    autoencoder = None if part is None else MODELS.build(part)
    pictures, captions = [], []
    for number in numbers:
        item = dataset[number]
        data = item['inputs'].float()
        channels = model['network']['in_channels']
        if data.shape[-3] == 2 * channels:  # mean and log-variance of an autoencoder
            data = data.narrow(-3, 0, channels)
        pictures.append(_picture(data, autoencoder))
        captions.append(_caption(item, dataset))
    return pictures, captions


def _picture(data: Tensor, autoencoder) -> Tensor:
    if data.shape[-3] in (1, 3):
        return to_uint8(data, 'round')
    try:
        if autoencoder is not None:
            autoencoder.check()
            pixels = autoencoder.decode(data.reshape(-1, *data.shape[-3:]))
            return to_uint8(pixels if data.ndim == 4 else pixels[0])
    except (FileNotFoundError, ImportError):
        pass
    shown = data.narrow(-3, 0, 3)
    low, high = shown.amin((-1, -2), keepdim=True), shown.amax((-1, -2), keepdim=True)
    shown = (shown - low) / (high - low).clamp_min(1e-6) * 2 - 1
    return to_uint8(shown.repeat_interleave(8, -1).repeat_interleave(8, -2))


def _caption(item: dict, dataset) -> str:
    if 'prompt' in item:
        return str(item['prompt'])
    if 'label' not in item or torch.as_tensor(item['label']).ndim:
        return ''
    label = int(item['label'])
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return str(classes[label]) if label < len(classes) else str(label)

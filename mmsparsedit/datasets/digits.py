"""The handwritten digits that scikit-learn carries: 1 797 real images of 8 x 8, no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS


def digits_images() -> tuple[np.ndarray, np.ndarray]:
    """All digits: images (1797, 8, 8) float32 in [-1, 1], labels (1797,) 0 ... 9.

    Of the file that ``sklearn.datasets.load_digits`` reads, without importing scikit-learn, which
    takes nearly as long as torch.
    """
    found = find_spec('sklearn')
    if found is None:
        raise ImportError('the digits are in scikit-learn: pip install scikit-learn')
    file = Path(found.submodule_search_locations[0]) / 'datasets/data/digits.csv.gz'
    table = np.loadtxt(file, delimiter=',', dtype=np.float32)  # 64 pixels of 0 ... 16, the digit
    return table[:, :-1].reshape(-1, 8, 8) / 8 - 1, table[:, -1].astype(np.int64)


@DATASETS.register_module()
class Digits(Dataset):
    """Handwritten digits as pixels: ``inputs`` (1, 8, 8) in [-1, 1], ``label``."""

    metainfo = dict(classes=tuple('0123456789'), data_shape=(1, 8, 8))

    def __init__(self) -> None:
        images, labels = digits_images()
        self.images = torch.from_numpy(images).unsqueeze(1)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], label=int(self.labels[index]))

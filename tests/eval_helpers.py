"""Small stand-ins shared by the tests of the evaluation."""

import numpy as np
import torch

from mmsparsedit.evaluation.features import InceptionFeatures


class TinyExtractor:
    """Seeded linear features of the image corners; a row does not depend on the rest of a batch."""

    label, random = 'tiny', False

    def __init__(self, pool=6, spatial=5, logits=9):
        generator = torch.Generator().manual_seed(1)
        self.weights = [
            torch.randn(48, dims, generator=generator, dtype=torch.float64)
            for dims in (pool, spatial, logits)
        ]
        self.description = {'name': self.label}
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        x = images[:, :, :4, :4].flatten(1).double() / 255
        pool, spatial, logits = ((x[:, :, None] * w).sum(dim=1).float() for w in self.weights)
        return InceptionFeatures(pool, spatial, logits)


def random_images(count, seed=0, size=8, low=0, high=256):
    """uint8 (N, H, W, 3) drawn from a seed."""
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (count, size, size, 3), dtype=np.uint8)


def as_samples(images):
    """Data samples of an array of images (N, H, W, 3)."""
    return [
        {'image': torch.from_numpy(image).permute(2, 0, 1), 'index': index, 'label': index % 10}
        for index, image in enumerate(images)
    ]

"""What images are compared with: ADM's npz files, own npz files, folders of images.

Own files carry ADM's keys and two more, ``size`` (H, W) and ``provenance`` (JSON text). Arrays are
read by key, never by position.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsparsedit.utils.npz import NpzArray

from .cache import cached, digest_of
from .images import FolderImages, NpzImages, check_image_array, open_images
from .statistics import FeatureStatistics

# Kynkäänniemi et al. 2019 and ADM: reference images that precision and recall look at
MANIFOLD_SAMPLES = 10_000
POOL_KEYS, SPATIAL_KEYS = ('mu', 'sigma'), ('mu_s', 'sigma_s')


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D) of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class ImageFeatures:
    """What a set of images gives: moments of both feature maps, pool features for the manifold."""

    count: int
    pool: Moments
    spatial: Moments
    manifold: Tensor  # (M, 2048) float32
    images: np.ndarray | None  # (M, H, W, 3) uint8, those of the manifold


def image_features(
    images: NpzImages | FolderImages,
    extractor,
    batch_size: int = 64,
    num_manifold: int | None = None,
    seed: int = 0,
    keep_images: bool = False,
) -> ImageFeatures:
    """One pass over a set of images; ``num_manifold`` None keeps the pool features of all."""
    chosen = torch.ones(len(images), dtype=torch.bool)
    if num_manifold is not None and len(images) > num_manifold:
        rng = np.random.default_rng(seed)
        chosen[:] = False
        chosen[rng.choice(len(images), num_manifold, replace=False)] = True
    pool, spatial, start = FeatureStatistics(), FeatureStatistics(), 0
    kept, kept_images = [], []
    for batch in images.batches(batch_size):
        features = extractor(batch)
        pool.update(features.pool)
        spatial.update(features.spatial)
        inside = chosen[start : start + len(batch)]
        kept.append(features.pool.cpu()[inside])
        if keep_images:
            kept_images.append(batch[inside].permute(0, 2, 3, 1).numpy())
        start += len(batch)
    return ImageFeatures(
        len(images),
        Moments(pool.mean, pool.covariance),
        Moments(spatial.mean, spatial.covariance),
        torch.cat(kept),
        np.concatenate(kept_images) if keep_images else None,
    )


class Reference:
    """What samples are compared with: a file of statistics, or samples that give them.

    What has to be computed is cached under a digest of the contents and of the extractor.

    Attributes:
        size: pixels (H, W) of the samples; None if only statistics are known.
        provenance: how a file of this package was made.
    """

    size: tuple[int, int] | None = None

    def __init__(
        self, path: str | os.PathLike, cache_dir: str | os.PathLike | None, batch_size: int
    ) -> None:
        self.path, self.cache_dir, self.batch_size = Path(path), cache_dir, batch_size
        self.provenance: dict = {}
        if not self.path.exists():
            raise FileNotFoundError(
                f'got the reference {path}, expected a file or a folder: there is none. Make it of '
                'your data by tools/dataset_converters/build_reference.py (mmsparsedit reference).'
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, or of names and contents of the folder."""
        return digest_of(self.path)

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse samples (H, W) of another resolution than the reference."""
        if self.size is not None and tuple(size) != self.size:
            raise ValueError(
                f'got samples of {size[0]} x {size[1]} pixels, expected {self.size[0]} x '
                f'{self.size[1]} as the reference {self.path}: use the reference of that resolution'
            )

    def describe(self) -> dict:
        """The reference's part of the recipe."""
        return {'path': str(self.path), 'sha256': self.digest, 'provenance': self.provenance}


class ImageReference(Reference):
    """Reference of ADM's metrics: an npz in ADM's format, an own one, or a folder of images.

    Statistics come from ``mu`` and its companions; where ``mu`` is missing, from the images in
    ``arr_0``. Precision and recall always look at ``arr_0``. Of a folder, all images give the
    statistics and a seeded draw of 10 000 the manifold. Building it checks keys and shapes and
    computes nothing.

    Raises:
        FileNotFoundError, ValueError: no such path; damaged npz; key missing or of another shape.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__(path, cache_dir, batch_size)
        self.keys: list[str] = []
        if self.path.is_dir():
            self.size = FolderImages(self.path).size
        else:
            self._read_header()

    def _read_header(self) -> None:
        self.keys = NpzArray.keys(self.path)
        if 'mu' not in self.keys and 'arr_0' not in self.keys:
            raise ValueError(
                f'got {self.path} with the keys {self.keys}, expected mu, sigma, mu_s, sigma_s or '
                'images in arr_0: build it with tools/dataset_converters/build_reference.py'
            )
        if 'provenance' in self.keys:
            self.provenance = read_provenance(self.path)
        if 'size' in self.keys:
            self.size = tuple(int(side) for side in NpzArray(self.path, 'size').read())
        if 'arr_0' in self.keys:
            array = NpzArray(self.path)
            check_image_array(array.shape, array.dtype, self.path)
            self.size = tuple(array.shape[1:3])

    def require(self, pool: bool, spatial: bool, manifold: bool, extractor) -> None:
        """Refuse at once a reference that cannot serve these metrics and this extractor."""
        if self.path.is_dir():
            return
        if (pool or spatial) and 'mu' in self.keys:
            check_features(self.path, self.provenance, extractor)
        if spatial and 'mu' in self.keys and 'mu_s' not in self.keys:
            raise ValueError(
                f'got {self.path} with mu and without mu_s, expected both for sFID: leave sfid out '
                'of the metrics or build the reference again'
            )
        if manifold and 'arr_0' not in self.keys:
            raise ValueError(
                f'got {self.path} without arr_0, expected reference images for precision and '
                'recall: leave both out of the metrics or use a reference with images'
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, or of names and contents of the images of the folder."""
        return digest_of(self.path, FolderImages(self.path).files if self.path.is_dir() else None)

    def moments(self, keys: tuple[str, str], extractor) -> Moments:
        """Moments of the pool (POOL_KEYS) or spatial features (SPATIAL_KEYS)."""
        if 'mu' in self.keys:
            return read_moments(self.path, keys)
        arrays = self._computed(extractor)
        return Moments(arrays[keys[0]], arrays[keys[1]])

    def manifold(self, extractor) -> Tensor:
        """Pool features (M, 2048) of the reference images, float32."""
        return torch.from_numpy(self._computed(extractor)['manifold'])

    def _computed(self, extractor) -> dict:
        limit = MANIFOLD_SAMPLES if self.path.is_dir() else None
        inputs = {'images': self.digest, 'features': extractor.description, 'manifold': limit}

        def make() -> dict:
            found = image_features(open_images(self.path), extractor, self.batch_size, limit)
            return {
                'mu': found.pool.mean,
                'sigma': found.pool.covariance,
                'mu_s': found.spatial.mean,
                'sigma_s': found.spatial.covariance,
                'manifold': found.manifold.numpy(),
            }

        return cached(self.cache_dir, inputs, make)


def read_provenance(path: Path) -> dict:
    """How a reference file of this package was made."""
    try:
        return dict(json.loads(str(NpzArray(path, 'provenance').read())))
    except (ValueError, TypeError, SystemError) as error:  # numpy makes strings that Python cannot
        raise ValueError(f'got {path} with provenance that is no JSON: {error}') from error


def read_moments(path: Path, keys: tuple[str, str]) -> Moments:
    """Mean and covariance of an npz under two keys; refuses other shapes and values."""
    mean, covariance = (NpzArray(path, key).read().astype(np.float64) for key in keys)
    if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        raise ValueError(
            f'got {keys[0]} {mean.shape} and {keys[1]} {covariance.shape} in {path}, expected (D,) '
            'and (D, D)'
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f'got NaN or infinity in {keys} of {path}, expected finite statistics')
    return Moments(mean, covariance)


def check_features(path: Path, provenance: dict, extractor) -> None:
    """Refuse to mix statistics of one network with features of another.

    A file without provenance is ADM's, made by the Inception of 2015-12-05.
    """
    made = provenance.get('features', {'name': 'inception-2015-12-05'})
    given = extractor.description
    exact = 'seed' in given or given['name'].startswith('i3d')
    if made != given if exact else made['name'] != given['name']:
        raise ValueError(
            f'got features of {given}, expected those of {made} that made the statistics in '
            f'{path}: use that extractor or a reference that holds images'
        )

"""Building own reference files from images or videos, with provenance."""

import json
import os
from pathlib import Path

import numpy as np

from .cache import digest_of, save_npz
from .images import FolderImages, NpzImages
from .recipe import package_versions
from .references import MANIFOLD_SAMPLES, image_features
from .video_references import VIDEO_KEYS, video_moments, video_provenance
from .videos import VideoFolder


def build_image_reference(
    images: NpzImages | FolderImages,
    extractor,
    output: str | os.PathLike,
    batch_size: int = 64,
    num_manifold: int = MANIFOLD_SAMPLES,
    seed: int = 0,
) -> dict:
    """Write a reference of all images under ADM's keys; returns its provenance.

    Keys: ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` (float64, all images), ``arr_0`` (a seeded draw
    of ``num_manifold`` images for precision and recall, uint8 NHWC), ``size`` (H, W),
    ``provenance``.
    """
    found = image_features(images, extractor, batch_size, num_manifold, seed, keep_images=True)
    files = images.files if isinstance(images, FolderImages) else None
    crop = getattr(images, 'crop', None)
    provenance = {
        'source': str(images.path),
        **({'crop': f'CenterCropADM to {crop}'} if crop else {}),
        'sha256': digest_of(images.path, files),
        'count': found.count,
        'num_manifold': len(found.images),
        'seed': seed,
        'features': extractor.description,
        'versions': package_versions(),
    }
    _write(
        output,
        provenance,
        arr_0=found.images,
        mu=found.pool.mean,
        sigma=found.pool.covariance,
        mu_s=found.spatial.mean,
        sigma_s=found.spatial.covariance,
        size=np.asarray(images.size),
    )
    return provenance


def build_video_reference(
    videos: VideoFolder, extractor, output: str | os.PathLike, batch_size: int = 8
) -> dict:
    """Write ``mu_i3d``, ``sigma_i3d`` and ``provenance`` of the clips; returns the provenance."""
    moments = video_moments(videos, extractor, batch_size)
    provenance = {
        **video_provenance(videos),
        'sha256': digest_of(videos.path),
        'features': extractor.description,
        'versions': package_versions(),
    }
    arrays = dict(zip(VIDEO_KEYS, (moments.mean, moments.covariance), strict=True))
    _write(output, provenance, **arrays)
    return provenance


def _write(output: str | os.PathLike, provenance: dict, **arrays: np.ndarray) -> None:
    if Path(output).suffix != '.npz':
        raise ValueError(f'got the output {output}, expected a name that ends in .npz')
    text = np.asarray(json.dumps(provenance, sort_keys=True))
    save_npz(output, provenance=text, **arrays)

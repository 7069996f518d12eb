"""Building own reference files from images or videos, with provenance."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from .files import hash_of_source, write_atomically
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
    found = image_features(images, extractor, batch_size, num_manifold, seed)
    files = images.files if isinstance(images, FolderImages) else None
    provenance = {
        'source': str(images.path),
        'sha256': hash_of_source(images.path, files),
        'count': found.count,
        'num_manifold': len(found.manifold_index),
        'seed': seed,
        'features': extractor.identity,
        'versions': package_versions(),
    }
    _write(
        output,
        provenance,
        arr_0=_pick(images, found.manifold_index, batch_size),
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
        'sha256': hash_of_source(videos.path),
        'features': extractor.identity,
        'versions': package_versions(),
    }
    arrays = dict(zip(VIDEO_KEYS, (moments.mean, moments.covariance), strict=True))
    _write(output, provenance, **arrays)
    return provenance


def _pick(images: NpzImages | FolderImages, index: np.ndarray, batch_size: int) -> np.ndarray:
    """The images at the positions ``index``, uint8 (M, H, W, 3)."""
    picked, start = [], 0
    for batch in images.batches(batch_size):
        inside = index[(index >= start) & (index < start + len(batch))] - start
        picked.append(batch[torch.from_numpy(inside)].permute(0, 2, 3, 1).numpy())
        start += len(batch)
    return np.concatenate(picked)


def _write(output: str | os.PathLike, provenance: dict, **arrays: np.ndarray) -> None:
    if Path(output).suffix != '.npz':
        raise ValueError(f'got the output {output}, expected a name that ends in .npz')
    text = np.asarray(json.dumps(provenance, sort_keys=True))
    write_atomically(output, lambda file: np.savez(file, provenance=text, **arrays))

"""Features of fast-DiT: pairing by number, shapes, labels."""

import numpy as np
import pytest
import torch

from mmsparsedit.registry import DATASETS


@pytest.fixture
def features(tmp_path):
    """Twelve features of fast-DiT's layout; k = 10 sorts before k = 2 by name."""
    random = np.random.default_rng(0)
    for name in ('imagenet256_features', 'imagenet256_labels'):
        (tmp_path / name).mkdir()
    latents = random.standard_normal((12, 1, 4, 8, 8)).astype(np.float32)
    for k in range(12):
        np.save(tmp_path / 'imagenet256_features' / f'{k}.npy', latents[k])
        np.save(tmp_path / 'imagenet256_labels' / f'{k}.npy', np.array([k * 3], np.int64))
    return tmp_path, latents


def build(root, **arguments):
    return DATASETS.build(dict(type='FastDiTFeatures', data_root=str(root), **arguments))


def test_items_pair_by_number(features):
    root, latents = features
    dataset = build(root, latent_shape=(4, 8, 8), num_classes=34)
    assert len(dataset) == 12
    for k in range(12):
        assert dataset[k]['label'] == 3 * k
        scaled = dataset[k]['inputs'] * dataset.metainfo['scale_factor']
        torch.testing.assert_close(scaled, torch.from_numpy(latents[k, 0]), rtol=1e-6, atol=0)
    assert dataset.metainfo['kind'] == 'sample' and dataset.metainfo['scale_factor'] == 0.18215


def test_a_gap_in_both_folders_is_kept_apart(features):
    root, latents = features
    for name in ('imagenet256_features', 'imagenet256_labels'):
        (root / name / '4.npy').unlink()
    dataset = build(root)
    assert len(dataset) == 11 and dataset[4]['label'] == 15


def test_what_does_not_pair(features):
    root, _ = features
    (root / 'imagenet256_labels' / '7.npy').unlink()
    with pytest.raises(ValueError, match=r'12 features and 11 labels.*first are \[7\]'):
        build(root)
    np.save(root / 'imagenet256_labels' / 'x7.npy', np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r'got x7.npy, expected files 0.npy'):
        build(root)


def test_wrong_shapes_and_labels(features):
    root, _ = features
    with pytest.raises(ValueError, match=r'expected \(4, 32, 32\)'):
        build(root, latent_shape=(4, 32, 32))
    with pytest.raises(ValueError, match=r'4\.npy: got labels from 12 to 12, expected 0 to 9'):
        build(root, num_classes=10)
    np.save(root / 'imagenet256_features' / '3.npy', np.zeros((1, 4, 4, 4), np.float32))
    with pytest.raises(ValueError, match='mixes two extractions'):
        build(root)[3]
    np.save(root / 'imagenet256_features' / '0.npy', np.zeros((4, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r'expected \(1, C, h, w\)'):
        build(root)
    np.save(root / 'imagenet256_labels' / '0.npy', np.zeros(2, np.int64))
    np.save(root / 'imagenet256_features' / '0.npy', np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(ValueError, match='expected one integer'):
        build(root)


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='imagenet256_features'):
        build(tmp_path)
    (tmp_path / 'imagenet256_features').mkdir()
    with pytest.raises(FileNotFoundError, match='no .npy files'):
        build(tmp_path)

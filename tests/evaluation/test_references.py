"""References: read by key, computed where statistics are missing, built with provenance, cached."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmsparsedit.evaluation.build import build_image_reference
from mmsparsedit.evaluation.images import FolderImages, NpzImages
from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.evaluation.references import POOL_KEYS, SPATIAL_KEYS, ImageReference
from mmsparsedit.registry import METRICS

from eval_helpers import TinyExtractor, as_samples, random_images


class AsInception(TinyExtractor):
    """Goes by the real Inception's name, so that ADM's own files accept it."""

    label = 'inception-2015-12-05'


def moments(images, extractor):
    features = extractor(torch.from_numpy(images).permute(0, 3, 1, 2))
    return [
        part(x.double().numpy())
        for x in (features.pool, features.spatial)
        for part in (lambda a: a.mean(axis=0), lambda a: np.cov(a, rowvar=False))
    ]


def save_folder(folder, images):
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f'{index}.png')


def test_adm_files_are_read_by_key_whatever_their_order(tmp_path):
    extractor = AsInception()
    mu, sigma, mu_s, sigma_s = moments(random_images(50), extractor)
    arrays = {
        'arr_0': random_images(12),
        'mu': mu,
        'sigma': sigma,
        'mu_s': mu_s,
        'sigma_s': sigma_s,
    }
    for order in (list(arrays), list(arrays)[::-1]):
        np.savez(tmp_path / 'adm.npz', **{key: arrays[key] for key in order})
        reference = ImageReference(tmp_path / 'adm.npz', tmp_path / 'cache')
        assert np.array_equal(reference.moments(POOL_KEYS, extractor).covariance, arrays['sigma'])
        assert np.array_equal(reference.moments(SPATIAL_KEYS, extractor).mean, arrays['mu_s'])
        # the manifold is of the images in the file, the moments of the whole data set
        assert reference.manifold(extractor).shape == (12, 6)
        assert reference.size == (8, 8)


def test_statistics_come_from_the_images_where_mu_is_missing(tmp_path):
    images, extractor = random_images(30), TinyExtractor()
    np.savez(tmp_path / 'images.npz', images)
    save_folder(tmp_path / 'folder', images)
    expected = moments(images, extractor)
    for path in (tmp_path / 'images.npz', tmp_path / 'folder'):
        reference = ImageReference(path, tmp_path / 'cache', batch_size=7)
        pool = reference.moments(POOL_KEYS, extractor)
        spatial = reference.moments(SPATIAL_KEYS, extractor)
        np.testing.assert_allclose(pool.mean, expected[0], rtol=1e-12)
        np.testing.assert_allclose(spatial.covariance, expected[3], rtol=1e-9, atol=1e-12)
        assert reference.manifold(extractor).shape == (30, 6)


def test_features_are_cached_under_contents_and_extractor(tmp_path):
    np.savez(tmp_path / 'images.npz', random_images(30))
    extractor = TinyExtractor()
    first = ImageReference(tmp_path / 'images.npz', tmp_path / 'cache').manifold(extractor)
    assert sum(extractor.seen) == 30
    again = ImageReference(tmp_path / 'images.npz', tmp_path / 'cache').manifold(extractor)
    assert sum(extractor.seen) == 30 and torch.equal(first, again)
    extractor.description = {'name': 'tiny', 'version': 2}
    ImageReference(tmp_path / 'images.npz', tmp_path / 'cache').manifold(extractor)
    assert sum(extractor.seen) == 60
    np.savez(tmp_path / 'images.npz', random_images(20, seed=5))
    ImageReference(tmp_path / 'images.npz', tmp_path / 'cache').manifold(extractor)
    assert sum(extractor.seen) == 80
    assert len(list((tmp_path / 'cache').glob('*.npz'))) == 3


def test_a_folder_larger_than_the_manifold_is_drawn_from(tmp_path):
    images, extractor = random_images(40), TinyExtractor()
    save_folder(tmp_path / 'folder', images)
    provenance = build_image_reference(
        FolderImages(tmp_path / 'folder'), extractor, tmp_path / 'own.npz', 7, num_manifold=15
    )
    assert provenance['count'] == 40 and provenance['num_manifold'] == 15
    with np.load(tmp_path / 'own.npz', allow_pickle=False) as file:
        assert set(file) == {'arr_0', 'mu', 'sigma', 'mu_s', 'sigma_s', 'size', 'provenance'}
        kept = file['arr_0']
        found = [file[key] for key in ('mu', 'sigma', 'mu_s', 'sigma_s')]
        assert json.loads(str(file['provenance'])) == provenance
    for value, expected in zip(found, moments(images, extractor), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
    places = [int(np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0]) for image in kept]
    assert places == sorted(places) and len(set(places)) == 15
    reference = ImageReference(tmp_path / 'own.npz', tmp_path / 'cache')
    reference.require(True, True, True, extractor)
    assert reference.manifold(extractor).shape == (15, 6)


def test_a_built_reference_gives_the_numbers_of_its_source(tmp_path):
    np.savez(tmp_path / 'images.npz', random_images(40))
    build_image_reference(NpzImages(tmp_path / 'images.npz'), TinyExtractor(), tmp_path / 'own.npz')
    results = []
    for name in ('images.npz', 'own.npz'):
        metric = METRICS.build(
            {
                '_scope_': 'mmsparsedit',
                'type': 'ADMMetrics',
                'reference': str(tmp_path / name),
                'extractor': TinyExtractor(),
                'cache_dir': str(tmp_path / 'cache'),
                'device': 'cpu',
            }
        )
        metric.process(None, as_samples(random_images(30, seed=1, high=220)))
        results.append(metric.evaluate(30))
        assert metric.describe()['num_samples'] == 30
    assert results[0] == pytest.approx(results[1], rel=1e-9)
    assert results[0]['adm/fid'] > 0 and 0 < results[0]['adm/precision'] <= 1


def test_statistics_of_another_network_are_refused(tmp_path):
    images = random_images(30)
    np.savez(tmp_path / 'images.npz', images)
    build_image_reference(NpzImages(tmp_path / 'images.npz'), TinyExtractor(), tmp_path / 'own.npz')
    with pytest.raises(ValueError, match="expected those of {'name': 'tiny'}"):
        ADMMetrics(tmp_path / 'own.npz', extractor=AsInception(), device='cpu')
    # a bare ADM file was made by the real Inception
    np.savez(tmp_path / 'adm.npz', mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(ValueError, match="expected those of {'name': 'inception-2015-12-05'}"):
        ADMMetrics(tmp_path / 'adm.npz', metrics=['fid'], extractor=TinyExtractor(), device='cpu')


def test_a_random_inception_labels_the_result(tmp_path):
    class Random(TinyExtractor):
        label, random = 'random-inception', True

    np.savez(tmp_path / 'images.npz', random_images(20))
    metric = ADMMetrics(
        tmp_path / 'images.npz', ['is'], extractor=Random(), cache_dir=tmp_path, device='cpu'
    )
    metric.process(None, as_samples(random_images(20)))
    assert list(metric.evaluate(20)) == ['adm_random_inception/is']


def test_grey_samples_count_as_three_equal_channels(tmp_path):
    np.savez(tmp_path / 'images.npz', random_images(20))
    metric = ADMMetrics(
        tmp_path / 'images.npz',
        ['fid'],
        extractor=TinyExtractor(),
        cache_dir=tmp_path,
        device='cpu',
    )
    numbers = []
    for channels in (1, 3):
        samples = as_samples(random_images(20, seed=1))
        grey = [{**s, 'image': s['image'][:1].expand(channels, -1, -1)} for s in samples]
        metric.process(None, grey)
        numbers.append(metric.evaluate(20)['adm/fid'])
    assert numbers[0] == numbers[1]


def test_files_are_read_in_blocks(tmp_path):
    images = random_images(23)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / 'images.npz', images)
        batches = list(NpzImages(tmp_path / 'images.npz').batches(5, limit=12))
        assert [len(batch) for batch in batches] == [5, 5, 2]
        assert np.array_equal(torch.cat(batches).permute(0, 2, 3, 1).numpy(), images[:12])


def test_folders_are_read_in_numerical_order(tmp_path):
    images = random_images(12)
    save_folder(tmp_path / 'folder', images)  # 10.png and 11.png sort before 2.png as text
    read = torch.cat(list(FolderImages(tmp_path / 'folder').batches(5)))
    assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), images)

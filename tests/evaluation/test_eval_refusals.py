"""What cannot be evaluated is refused by name: file, sample, got, expected, what to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmsparsedit.evaluation.images import FolderImages, NpzImages, open_images
from mmsparsedit.evaluation.metrics import ADMMetrics
from mmsparsedit.evaluation.references import ImageReference

from eval_helpers import TinyExtractor, as_samples, random_images


@pytest.fixture
def metric(tmp_path):
    np.savez(tmp_path / 'reference.npz', random_images(20))
    return ADMMetrics(
        tmp_path / 'reference.npz', extractor=TinyExtractor(), cache_dir=tmp_path, device='cpu'
    )


def test_damaged_npz(tmp_path):
    whole = tmp_path / 'whole.npz'
    np.savez_compressed(whole, random_images(50))
    data = whole.read_bytes()
    cut, flipped, text = (tmp_path / f'{name}.npz' for name in ('cut', 'flipped', 'text'))
    cut.write_bytes(data[: len(data) // 2])
    flipped.write_bytes(data[:3000] + bytes(byte ^ 255 for byte in data[3000:3100]) + data[3100:])
    text.write_text('no archive')
    for path in (cut, text):
        with pytest.raises(ValueError, match=rf'{path.name}, expected an npz file: it is damaged'):
            ImageReference(path)
    with pytest.raises(ValueError, match='flipped.npz, expected an npz file: it is damaged'):
        list(NpzImages(flipped).batches(10))
    with pytest.raises(FileNotFoundError, match='nothing.npz'):
        open_images(tmp_path / 'nothing.npz')


def test_npz_without_what_is_needed(tmp_path):
    np.savez(tmp_path / 'other.npz', images=random_images(3))
    with pytest.raises(ValueError, match=r"keys \['images'\], expected 'arr_0'"):
        NpzImages(tmp_path / 'other.npz')
    with pytest.raises(ValueError, match=r"keys \['images'\], expected mu, sigma"):
        ImageReference(tmp_path / 'other.npz')
    np.savez(tmp_path / 'bare.npz', mu=np.zeros(6), sigma=np.eye(6))
    extractor = TinyExtractor()
    extractor.description = {'name': 'inception-2015-12-05'}
    with pytest.raises(ValueError, match='with mu and without mu_s'):
        ADMMetrics(tmp_path / 'bare.npz', ['sfid'], extractor=extractor, device='cpu')
    with pytest.raises(ValueError, match='without arr_0, expected reference images for precision'):
        ADMMetrics(tmp_path / 'bare.npz', ['recall'], extractor=extractor, device='cpu')
    np.savez(tmp_path / 'nan.npz', mu=np.full(6, np.nan), sigma=np.eye(6))
    with pytest.raises(ValueError, match=r"NaN or infinity in \('mu', 'sigma'\) of"):
        ImageReference(tmp_path / 'nan.npz').moments(('mu', 'sigma'), extractor)


def test_images_that_are_not_uint8(tmp_path):
    images = random_images(3).astype(np.float32) / 127.5 - 1
    np.savez(tmp_path / 'float.npz', images)
    with pytest.raises(ValueError, match='got images of float32 in .*expected uint8'):
        NpzImages(tmp_path / 'float.npz')
    images[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / 'nan.npz', images)
    with pytest.raises(ValueError, match='got NaN images in .*nan.npz'):
        NpzImages(tmp_path / 'nan.npz')
    np.savez(tmp_path / 'first.npz', random_images(3).transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r'got images of shape \(3, 3, 8, 8\).*channels last'):
        NpzImages(tmp_path / 'first.npz')


def test_nan_samples(metric):
    sample = {'image': torch.full((3, 8, 8), torch.nan), 'index': 7}
    with pytest.raises(ValueError, match='NaN or infinity in image 7'):
        metric.process(None, [sample])
    with pytest.raises(ValueError, match=r'image 7 of shape \(3, 8, 8\) and torch.float32'):
        metric.process(None, [{**sample, 'image': torch.zeros(3, 8, 8)}])


def test_samples_of_another_size(metric):
    with pytest.raises(ValueError, match='got samples of 16 x 16 pixels, expected 8 x 8'):
        metric.process(None, as_samples(random_images(2, size=16)))
    mixed = as_samples(random_images(2)) + [
        {'image': torch.zeros(3, 8, 9, dtype=torch.uint8), 'index': 2}
    ]
    with pytest.raises(ValueError, match='got image 2 of 8 x 9 pixels, expected 8 x 8'):
        metric.process(None, mixed)


def test_fewer_or_repeated_samples(metric, tmp_path):
    metric.process(None, as_samples(random_images(10)))
    with pytest.raises(ValueError, match='got 10 samples, expected 12'):
        metric.evaluate(12)
    metric.process(None, as_samples(random_images(10)))
    metric.process(None, as_samples(random_images(2)))
    with pytest.raises(ValueError, match='got 12 samples, 2 of them a second time'):
        metric.evaluate(12)
    metric.process(None, as_samples(random_images(10))[1:])
    with pytest.raises(ValueError, match='got indices up to 9 for 9 samples'):
        metric.evaluate(9)
    asked = ADMMetrics(
        tmp_path / 'reference.npz', ['is'], 50, TinyExtractor(), cache_dir=tmp_path, device='cpu'
    )
    asked.process(None, as_samples(random_images(10)))
    with pytest.raises(ValueError, match='got 10 samples, expected 50'):
        asked.evaluate(10)
    # a refused evaluation leaves nothing behind
    metric.process(None, as_samples(random_images(10)))
    assert metric.evaluate(10).keys() >= {'adm/fid', 'adm/recall'}


def test_samples_without_their_position(metric):
    with pytest.raises(ValueError, match=r"with \['image'\], expected 'image' and index"):
        metric.process(None, [{'image': torch.zeros(3, 8, 8, dtype=torch.uint8)}])


def test_unknown_metric(tmp_path):
    with pytest.raises(ValueError, match=r"got metrics \['kid'\], expected some of \['fid'"):
        ADMMetrics(tmp_path / 'reference.npz', ['kid'])


def test_folders(tmp_path):
    with pytest.raises(ValueError, match='without images'):
        FolderImages(tmp_path)
    Image.new('RGB', (8, 8)).save(tmp_path / '0.png')
    Image.new('RGB', (9, 8)).save(tmp_path / '1.png')
    with pytest.raises(ValueError, match='1.png of 8 x 9 pixels, expected 8 x 8 as .*0.png'):
        list(FolderImages(tmp_path).batches(4))
    Image.new('RGBA', (8, 8)).save(tmp_path / '1.png')
    with pytest.raises(ValueError, match='1.png of mode RGBA, expected RGB or L'):
        list(FolderImages(tmp_path).batches(4))
    Image.new('P', (8, 8)).save(tmp_path / '1.png', transparency=0)
    with pytest.raises(ValueError, match='1.png of mode P with transparency, expected RGB or L'):
        list(FolderImages(tmp_path).batches(4))
    (tmp_path / '1.png').write_bytes((tmp_path / '0.png').read_bytes()[:40])
    with pytest.raises(ValueError, match='1.png, expected an image: it is damaged'):
        list(FolderImages(tmp_path).batches(4))

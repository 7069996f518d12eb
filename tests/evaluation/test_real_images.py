"""EfficientNet-Lite0 and the metric against small sets of real images."""

import numpy as np
import pytest
import skimage.data
import torch
from torch.utils.data import Dataset

from mmsparsedit.evaluation.efficientnet import EfficientNetLite0
from mmsparsedit.evaluation.real_images import RealImages, RealImagesMetric, nearest, retrieved
from mmsparsedit.registry import DATASETS

EGYPTIAN_CAT, ESPRESSO = 285, 967  # classes of ImageNet


def square(photograph):
    image = torch.from_numpy(photograph).permute(2, 0, 1)
    side = min(image.shape[1:])
    top, left = ((n - side) // 2 for n in image.shape[1:])
    return image[None, :, top : top + side, left : left + side]


def test_the_network_knows_photographs():
    network = EfficientNetLite0()
    cat, coffee = square(skimage.data.chelsea()), square(skimage.data.coffee())
    assert network.probabilities(cat).argmax() == EGYPTIAN_CAT
    found = network.probabilities(coffee)
    assert found.argmax() == ESPRESSO and found.max() > 0.8
    assert network(cat).shape == (1, 1280)
    grey = cat[:, :1]
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match=r'expected \(N, 1, H, W\)'):
        network(cat.float())


@DATASETS.register_module()
class Blots(Dataset):
    """Bright squares in one of four corners, which is the label, on noise of their own."""

    def __init__(self, seed, count=80):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(count) % 4
        self.images = rng.integers(0, 100, (count, 1, 8, 8))
        for image, label in zip(self.images, self.labels, strict=True):
            image[0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 150

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return dict(inputs=torch.from_numpy(self.images[i]) / 127.5 - 1, label=int(self.labels[i]))


class Corners:
    """Means of the four corners and their squares (n, 8)."""

    description = {'name': 'corners'}

    def __call__(self, images):
        means = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
        return torch.cat([means, means**2], 1)


@pytest.fixture
def metric(tmp_path, monkeypatch):
    monkeypatch.setattr('mmsparsedit.evaluation.real_images.TASK_UTILS.build', lambda _: Corners())
    blots = dict(type='Blots', _scope_='mmsparsedit')
    return RealImagesMetric(
        dict(blots, seed=0), dict(blots, seed=1), extractor={}, cache_folder=str(tmp_path)
    )


def judge(metric, images, labels):
    order = np.random.default_rng(2).permutation(len(labels))
    for i in order:
        sample = dict(index=i, image=images[i], label=labels[i])
        metric.process(None, [sample])
    return metric.evaluate(len(labels))


def test_held_out_images_get_the_floor(metric):
    _, held_out = metric.real
    found = judge(metric, held_out.images, held_out.labels)
    for name in ('frechet', 'recognised', 'precision', 'recall', 'nearest', 'memorised'):
        assert found[f'real/{name}'] == pytest.approx(found[f'real/{name}_held_out'], rel=1e-6)
    assert found['real/recognised'] == 100 and found['real/memorised'] == pytest.approx(1.25)


def test_training_images_are_memorised_and_wrong_ones_are_not_recognised(metric):
    train, _ = metric.real
    found = judge(metric, train.images, (train.labels + 1) % 4)
    assert found['real/memorised'] == 100 and found['real/nearest'] < 1e-6
    assert found['real/recognised'] == 0 and found['real/frechet'] == pytest.approx(0, abs=1e-9)
    assert found['real/precision'] == found['real/recall'] == 1


def test_features_of_real_images_are_kept(metric, monkeypatch):
    first = metric.real[0].features
    monkeypatch.setattr(Corners, '__call__', lambda *_: pytest.fail('computed again'))
    del metric.__dict__['real']
    assert np.array_equal(metric.real[0].features, first)


def test_nearest_is_the_root_mean_square_in_units_of_white():
    real = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    real[1] = 255
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    distance, index = nearest(images, real)
    assert index.tolist() == [0, 0, 1]
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64))


class Captioned(Blots):
    def __getitem__(self, i):
        return dict(super().__getitem__(i), prompt=f'blot {i}')


def test_captions_are_found_by_their_own_picture(tmp_path):
    real = RealImages(Captioned(seed=0), Corners(), tmp_path)
    assert retrieved(real.features, real.prompts, real, among=1) == 100
    # the picture of the neighbour in the list has another corner lit, and is not among the nearest
    asked = real.prompts[1:] + real.prompts[:1]
    assert retrieved(real.features, asked, real, among=5) == 0
    assert retrieved(real.features, asked, real, among=80) == 100
    with pytest.raises(ValueError, match="1 captions .* 'sun' the first: retrieval needs"):
        retrieved(real.features, ['sun'] * 80, real, among=1)

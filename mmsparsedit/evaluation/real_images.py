"""Generated images against small sets of real ones, in the features of a network of ImageNet.

Letters: N generated images, R real ones, D feature dimensions, P values of an image.
"""

import hashlib
import os
from functools import cached_property

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.utils.data import Dataset

from mmsparsedit.registry import DATASETS, METRICS, TASK_UTILS
from mmsparsedit.utils.uint8 import to_uint8

from .cache import cached
from .digits import features_distance, in_order
from .precision_recall import precision_recall

BATCH = 50
# nearer to a training image than all but this share of images that nobody trained on
MEMORISED_SHARE = 0.01


class RealImages:
    """A set of real images with labels, and their features.

    Args:
        dataset: items have ``inputs`` (C, H, W) in [-1, 1] and ``label``, some ``prompt`` too.
        extractor: images uint8 (n, C, H, W) -> features (n, D), with a ``description``.
        cache_folder: where features are kept; None is ``cache.cache_folder()``.
    """

    def __init__(
        self, dataset: Dataset, extractor, cache_folder: str | os.PathLike | None = None
    ) -> None:
        items = [dataset[i] for i in range(len(dataset))]
        self.images = to_uint8(torch.stack([item['inputs'] for item in items]), 'round')
        self.labels = np.array([item['label'] for item in items])
        self.prompts = [item.get('prompt') for item in items]
        digest = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()
        inputs = {'features_of': digest, 'extractor': extractor.description}
        self.features = cached(
            cache_folder, inputs, lambda: {'features': extract(extractor, self.images)}
        )['features']


def extract(extractor, images: Tensor) -> np.ndarray:
    """Features (N, D) float32 of images uint8 (N, C, H, W), batch by batch."""
    return torch.cat([extractor(batch).cpu() for batch in images.split(BATCH)]).float().numpy()


def nearest(images: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance (N,) of uint8 images to the nearest of ``real``, and which (N,)."""
    a, b = (x.flatten(1).double() / 255 for x in (images, real))  # (N, P), (R, P)
    distance, index = torch.cdist(a, b).min(dim=1)
    return distance / a.shape[1] ** 0.5, index


def retrieved(features: np.ndarray, asked: list[str], real: RealImages, among: int) -> float:
    """Percentage of features (N, D) with a picture of their caption among the nearest real ones.

    Args:
        asked: captions (N,), each of them of a real image.
        among: how many real images count as nearest, by the cosine of standardised features.
    """
    if unknown := sorted(set(asked) - set(real.prompts)):
        raise ValueError(
            f'{len(unknown)} captions were asked for that no training image has, {unknown[0]!r} '
            'the first: retrieval needs requests for captions of the training images.'
        )
    mean, std = real.features.mean(axis=0), real.features.std(axis=0) + 1e-6
    a, b = (
        torch.nn.functional.normalize(torch.from_numpy((x - mean) / std), dim=1)
        for x in (features, real.features)
    )
    nearest_ones = (a @ b.T).topk(among, dim=1).indices.tolist()
    found = [
        caption in [real.prompts[i] for i in places]
        for caption, places in zip(asked, nearest_ones, strict=True)
    ]
    return 100 * sum(found) / len(found)


class FeatureClassifier:
    """Logistic regression on standardised features (R, D), fitted on real images only."""

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._net = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        self._net.fit(features, labels)

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Percentage of features (N, D) taken for their labels (N,)."""
        return float(100 * (self._net.predict(features) == labels).mean())


@METRICS.register_module()
class RealImagesMetric(BaseMetric):
    """Fréchet distance, precision and recall, recognised share and memorisation, of N images.

    Each number stands beside that of real images that nobody trained on, the floor (ceiling) of
    what a perfect generator would get; numbers of differing N cannot be compared.

    ``frechet``: to the training images, in the extractor's features. It is no FID.
    ``precision``, ``recall``: shares of Kynkäänniemi et al. 2019 in the same features.
    ``recognised``: percentage that a classifier fitted on the training images takes for its label.
    ``retrieved1``, ``retrieved5``: percentage whose nearest, or one of whose five nearest, training
    images in these features has the caption that was asked for; of requests by caption.
    ``nearest``: median RMS distance to the nearest training image, pixels in [0, 1];
    ``memorised``: percentage nearer to one than 99 % of the held-out images are.

    Args:
        train, held_out: data sets of real images, seen in training and not.
        extractor: of features; EfficientNet-Lite0 at 112 pixels by default.
        cache_folder: of the features of real images.
    """

    default_prefix = 'real'

    def __init__(
        self,
        train: dict,
        held_out: dict,
        extractor: dict | None = None,
        cache_folder: str | None = None,
    ) -> None:
        super().__init__()
        self.extractor = TASK_UTILS.build(extractor or dict(type='EfficientNetLite0', size=112))
        self._sets = (train, held_out)
        self._cache_folder = cache_folder

    @cached_property
    def real(self) -> tuple[RealImages, RealImages]:
        """Training images and held-out ones, read when they are first needed."""
        sets = (DATASETS.build(part) for part in self._sets)
        return tuple(RealImages(part, self.extractor, self._cache_folder) for part in sets)

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            asked = sample['image'].numpy(), sample['label'], sample.get('prompt', '')
            self.results.append((sample['index'], *asked))

    def compute_metrics(self, results: list) -> dict[str, float]:
        images, labels, prompts = in_order(results)
        images = torch.from_numpy(images)
        features = extract(self.extractor, images)
        found = self._measure(images, features, labels)
        if all(prompts):
            for among in (1, 5):
                share = retrieved(features, prompts.tolist(), self.real[0], among)
                found[f'retrieved{among}'] = share
        return dict(found, **self._floor, num_samples=float(len(results)))

    @cached_property
    def _classifier(self) -> FeatureClassifier:
        train, _ = self.real
        return FeatureClassifier(train.features, train.labels)

    @cached_property
    def _bound(self) -> float:
        train, held_out = self.real
        return nearest(held_out.images, train.images)[0].quantile(MEMORISED_SHARE).item()

    @cached_property
    def _floor(self) -> dict[str, float]:
        _, held_out = self.real
        found = self._measure(held_out.images, held_out.features, held_out.labels)
        return {f'{name}_held_out': value for name, value in found.items()}

    def _measure(
        self, images: Tensor, features: np.ndarray, labels: np.ndarray
    ) -> dict[str, float]:
        train, _ = self.real
        distance, _ = nearest(images, train.images)
        precision, recall = precision_recall(
            torch.from_numpy(train.features), torch.from_numpy(features)
        )
        return dict(
            frechet=features_distance(features, train.features),
            recognised=self._classifier.accuracy(features, labels),
            precision=precision,
            recall=recall,
            nearest=distance.median().item(),
            memorised=100 * (distance < self._bound).double().mean().item(),
        )

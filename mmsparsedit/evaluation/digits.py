"""Measures of generated digits that mean something without a download."""

import warnings
from functools import cache

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmsparsedit.datasets.digits import digits_images
from mmsparsedit.registry import METRICS

from .statistics import FeatureStatistics, frechet_distance

HELD_OUT = 0.2


class DigitsClassifier:
    """A multilayer perceptron fitted on four fifths of the real digits, judged on the last fifth.

    Deterministic: fixed split, fixed seed.

    Args:
        views: images (1797, ...) in [-1, 1] of the digits, if they are to be seen otherwise than
            as they are.
    """

    def __init__(self, views: np.ndarray | None = None) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier

        images, labels = digits_images()
        images = images if views is None else views
        self.real = images.reshape(len(images), -1)
        fitted, held, fitted_labels, held_labels = train_test_split(
            self.real, labels, test_size=HELD_OUT, random_state=0, stratify=labels
        )
        self._net = MLPClassifier((256, 64), alpha=1e-2, max_iter=60, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)  # stopped early on purpose
            self._net.fit(fitted, fitted_labels)
        self.held_out_accuracy = float(self._net.score(held, held_labels))

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Images (n, 64) in [-1, 1] -> digits (n,)."""
        return self._net.predict(pixels)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Images (n, 64) in [-1, 1] -> last hidden layer (n, 64), before its rectification.

        Rectified units that never fire would make the covariance singular.
        """
        (first, second, _), (bias, bias2, _) = self._net.coefs_, self._net.intercepts_
        return np.maximum(pixels @ first + bias, 0) @ second + bias2


@cache
def digits_classifier() -> DigitsClassifier:
    return DigitsClassifier()


def features_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features (n, d)."""
    statistics = []
    for features in (a, b):
        collected = FeatureStatistics()
        collected.update(torch.from_numpy(features))
        statistics += [collected.mean, collected.covariance]
    return float(frechet_distance(*statistics))


def real_halves_distance(classifier: DigitsClassifier) -> float:
    """Fréchet distance between two random halves of the real digits: what noise alone gives."""
    order = np.random.default_rng(0).permutation(len(classifier.real))
    halves = np.array_split(classifier.features(classifier.real)[order], 2)
    return features_distance(*halves)


@METRICS.register_module()
class DigitsMetric(BaseMetric):
    """Share of digits recognised as their label, and Fréchet distance to the real digits.

    ``recognised`` is a percentage, beside it the accuracy of the classifier on real digits that
    it was not fitted on. ``frechet`` is in the space of the classifier's last hidden layer (64),
    beside it the distance between two halves of the real data.
    """

    default_prefix = 'digits'

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            pixels = sample['image'].numpy().astype(np.float32).reshape(-1)
            self.results.append((sample['index'], pixels / 127.5 - 1, sample['label']))

    def compute_metrics(self, results: list) -> dict[str, float]:
        results = sorted(results, key=lambda result: result[0])  # any number of processes
        images = np.stack([image for _, image, _ in results])
        labels = np.array([label for _, _, label in results])
        classifier = digits_classifier()
        features = classifier.features(images)
        return dict(
            recognised=float(100 * (classifier.predict(images) == labels).mean()),
            classifier_held_out=100 * classifier.held_out_accuracy,
            frechet=features_distance(features, classifier.features(classifier.real)),
            frechet_real_halves=real_halves_distance(classifier),
            num_samples=float(len(results)),
        )

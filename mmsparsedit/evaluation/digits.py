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


def split_digits(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Fitted and held images, fitted and held labels: four fifths and the last, always the same."""
    from sklearn.model_selection import train_test_split

    return train_test_split(images, labels, test_size=HELD_OUT, random_state=0, stratify=labels)


class Perceptron:
    """A multilayer perceptron that classifies vectors; deterministic, of a fixed seed.

    Args:
        inputs, targets: (n, d) and (n,), what it is fitted on.
        max_iter: passes over them.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, max_iter: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        net = MLPClassifier((256, 64), alpha=1e-2, max_iter=max_iter, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)  # stopped early on purpose
            net.fit(inputs, targets)
        self.predict, self.score = net.predict, net.score
        self._weights, self._biases = net.coefs_, net.intercepts_

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs (n, d) -> last hidden layer (n, 64), before its rectification.

        Rectified units that never fire would make the covariance singular.
        """
        (first, second, _), (bias, bias2, _) = self._weights, self._biases
        return np.maximum(inputs @ first + bias, 0) @ second + bias2


class DigitsClassifier:
    """A perceptron fitted on four fifths of the real digits, judged on the last fifth.

    Args:
        views: images (1797, ...) in [-1, 1] of the digits, if they are to be seen otherwise than
            as they are.
    """

    def __init__(self, views: np.ndarray | None = None) -> None:
        images, labels = digits_images()
        images = images if views is None else views
        self.real = images.reshape(len(images), -1)
        fitted, held, fitted_labels, held_labels = split_digits(self.real, labels)
        net = Perceptron(fitted, fitted_labels, max_iter=60)
        self.held_out_accuracy = float(net.score(held, held_labels))
        self.predict = net.predict  # images (n, pixels) in [-1, 1] -> digits (n,)
        self.features = net.features  # images -> last hidden layer (n, 64)


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


def halves_distance(features: np.ndarray) -> float:
    """Fréchet distance between two random halves of features (n, d): what noise alone gives."""
    order = np.random.default_rng(0).permutation(len(features))
    return features_distance(*np.array_split(features[order], 2))


def in_order(results: list[tuple]) -> list[np.ndarray]:
    """Results (index, ...) of any number of processes -> their entries in order of the index."""
    columns = zip(*sorted(results, key=lambda result: result[0]), strict=True)
    return [np.stack(column) for column in columns][1:]


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
        images, labels = in_order(results)
        classifier = digits_classifier()
        real = classifier.features(classifier.real)
        return dict(
            recognised=float(100 * (classifier.predict(images) == labels).mean()),
            classifier_held_out=100 * classifier.held_out_accuracy,
            frechet=features_distance(classifier.features(images), real),
            frechet_real_halves=halves_distance(real),
            num_samples=float(len(results)),
        )

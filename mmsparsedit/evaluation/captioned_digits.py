"""Measures of generated scenes of two digits (``CaptionedDigits``)."""

from functools import cache

import numpy as np
from mmengine.evaluator import BaseMetric

from mmsparsedit.datasets.captioned_digits import HALF, HEIGHT, DigitPainter, draw_scene
from mmsparsedit.datasets.digits import digits_images
from mmsparsedit.registry import METRICS

from .digits import Perceptron, features_distance, in_order, split_digits

HALVES_PER_SCAN = 5  # drawings of each real digit that the classifier is fitted on
REAL_SCENES = 4000


class HalfSceneClassifier:
    """A multilayer perceptron that reads the digit of half a scene, small or not.

    Fitted on four fifths of the real digits, judged on scenes of the last fifth. Deterministic.
    """

    def __init__(self) -> None:
        images, labels = digits_images()
        fitted, held, fitted_labels, held_labels = split_digits(images, labels)
        rng = np.random.default_rng(0)
        painter = DigitPainter(fitted, fitted_labels)
        targets = np.tile(np.arange(10), len(fitted) * HALVES_PER_SCAN // 10)
        halves = [painter.half(int(d), bool(rng.random() < 0.5), rng) for d in targets]
        self._net = Perceptron(np.stack(halves).reshape(len(halves), -1), targets, max_iter=25)
        self.real, _ = _real_scenes(DigitPainter(images, labels), rng)
        scenes, digits = _real_scenes(DigitPainter(held, held_labels), rng)
        self.held_out_accuracy = float((self.read(scenes) == digits).all(axis=1).mean())

    def read(self, pictures: np.ndarray) -> np.ndarray:
        """Scenes (n, 8, 16) in [-1, 1] -> digits (n, 2), left and right."""
        return self._net.predict(_halves(pictures)).reshape(-1, 2)

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Scenes (n, 8, 16) -> last hidden layers of both halves (n, 128), not rectified."""
        return self._net.features(_halves(pictures)).reshape(len(pictures), -1)


def _halves(pictures: np.ndarray) -> np.ndarray:
    """(n, 8, 16) -> (2n, 8 * 8), left and right by turns."""
    return pictures.reshape(-1, HEIGHT, 2, HALF).transpose(0, 2, 1, 3).reshape(-1, HEIGHT * HALF)


def _real_scenes(painter: DigitPainter, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    scenes = [draw_scene(rng) for _ in range(REAL_SCENES)]
    pictures = np.stack([painter.paint(scene, rng) for scene in scenes])
    return pictures, np.array([scene.digits for scene in scenes])


@cache
def half_scene_classifier() -> HalfSceneClassifier:
    return HalfSceneClassifier()


@METRICS.register_module()
class CaptionedDigitsMetric(BaseMetric):
    """Whether scenes show what their captions say, and their Fréchet distance to real ones.

    ``in_order`` is the percentage of images whose left and right digit are both recognised as the
    caption places them, ``exchanged`` of those with the two digits changed about (equal digits
    apart), ``each`` of single digits recognised in their place; beside them ``real``, the
    percentage of scenes of held-out real digits whose both digits are recognised. ``frechet`` is in
    the space of the classifier's last hidden layers (128), beside it the distance of as many real
    scenes to the others.
    """

    default_prefix = 'scenes'

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            picture = sample['image'].numpy().astype(np.float32)[0] / 127.5 - 1
            self.results.append((sample['index'], picture, (sample['left'], sample['right'])))

    def compute_metrics(self, results: list) -> dict[str, float]:
        pictures, asked = in_order(results)
        classifier = half_scene_classifier()
        found = classifier.read(pictures)
        differing = asked[:, 0] != asked[:, 1]
        exchanged = (found == asked[:, ::-1]).all(axis=1) & differing
        real = classifier.features(classifier.real)
        count = min(len(results), len(real) // 2)
        return dict(
            in_order=float(100 * (found == asked).all(axis=1).mean()),
            exchanged=float(100 * exchanged.mean()),
            each=float(100 * (found == asked).mean()),
            real=100 * classifier.held_out_accuracy,
            frechet=features_distance(classifier.features(pictures), real),
            frechet_real=features_distance(real[:count], real[count:]),
            num_samples=float(len(results)),
        )

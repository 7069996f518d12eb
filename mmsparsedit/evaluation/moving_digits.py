"""Measures of generated videos of moving digits that mean something without a download."""

from functools import cache

import numpy as np
from mmengine.evaluator import BaseMetric

from mmsparsedit.datasets.digits import digits_images
from mmsparsedit.datasets.video_digits import VELOCITIES, moving_digits
from mmsparsedit.registry import METRICS

from .digits import DigitsClassifier, features_distance, halves_distance, in_order

CROP = 10  # pixels; a digit has 8, its centre of mass lies up to one off the middle
BLACK = 0.1  # of the range; what is darker does not count as ink
LAWFUL = 0.7  # pixels; largest deviation of a step of 4, along either axis, from a velocity


def centres_of_mass(frames: np.ndarray) -> np.ndarray:
    """Frames (..., H, W) in [0, 1] -> (..., 2) as (row, column); the middle where all is black."""
    ink = np.clip(frames - BLACK, 0, None)
    total = ink.sum((-2, -1))
    height, width = frames.shape[-2:]
    rows = (ink.sum(-1) * np.arange(height)).sum(-1) / np.maximum(total, 1e-6)
    columns = (ink.sum(-2) * np.arange(width)).sum(-1) / np.maximum(total, 1e-6)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    return np.where(total[..., None] > 0, np.stack([rows, columns], axis=-1), middle)


def centred_crops(frames: np.ndarray) -> np.ndarray:
    """The CROP x CROP pixels around each centre of mass: (n, H, W) in [0, 1] -> [-1, 1].

    A digit then looks the same wherever on the canvas it stands.
    """
    corners = np.rint(centres_of_mass(frames) - (CROP - 1) / 2).astype(int) + CROP
    padded = np.pad(frames, ((0, 0), (CROP, CROP), (CROP, CROP)))
    crops = [
        frame[top : top + CROP, left : left + CROP]
        for frame, (top, left) in zip(padded, corners, strict=True)
    ]
    return np.stack(crops).astype(np.float32) * 2 - 1


@cache
def centred_digits_classifier() -> DigitsClassifier:
    """``DigitsClassifier`` of the real digits, cropped as frames of videos are."""
    images, _ = digits_images()
    return DigitsClassifier(centred_crops((images + 1) / 2))


def clip_features(videos: np.ndarray) -> np.ndarray:
    """Videos (n, F, H, W) in [0, 1] -> (n, 64 + 2 (F - 1)).

    The classifier's last hidden layer averaged over the frames, and the steps of the centre of
    mass in pixels: what is shown, and how it moves.
    """
    crops = centred_crops(videos.reshape(-1, *videos.shape[2:])).reshape(-1, CROP * CROP)
    hidden = centred_digits_classifier().features(crops).reshape(*videos.shape[:2], -1)
    steps = np.diff(centres_of_mass(videos), axis=1)  # (n, F - 1, 2)
    return np.concatenate([hidden.mean(axis=1), steps.reshape(len(videos), -1)], axis=1)


def recognised_frames(videos: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the digit of each frame is recognised as the label, (n, F)."""
    crops = centred_crops(videos.reshape(-1, *videos.shape[2:])).reshape(-1, CROP * CROP)
    found = centred_digits_classifier().predict(crops).reshape(videos.shape[:2])
    return found == labels[:, None]


def lawful_steps(videos: np.ndarray) -> np.ndarray:
    """Whether each step of the centre of mass is one of the data's velocities, (n, F - 1)."""
    steps = np.diff(centres_of_mass(videos), axis=1)
    off = np.abs(steps[:, :, None] - np.array(VELOCITIES)).max(axis=-1).min(axis=-1)
    return off <= LAWFUL


@METRICS.register_module()
class MovingDigitsMetric(BaseMetric):
    """Are the digits recognised in every frame, do they move as the data do, how far off are all.

    * ``recognised_clips``: percentage of videos whose digit is recognised as the label in every
      frame; ``recognised_frames`` of frames; beside them the classifier's accuracy on real digits
      that it was not fitted on.
    * ``lawful_motion``: percentage of steps of the centre of mass that are one of the data's eight
      velocities (100 for real videos); ``speed`` in pixels per frame, beside it that of the data.
    * ``frechet``: distance to the real videos in the space of ``clip_features``, beside it the
      distance between two halves of the real ones.

    Args:
        num_real: real videos compared with, made anew from their seed.
    """

    default_prefix = 'moving_digits'

    def __init__(self, num_real: int = 1797, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_real = num_real

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            video = sample['video'].numpy()[:, 0].astype(np.float32) / 255  # (F, H, W)
            self.results.append((sample['index'], video, sample['label']))

    def compute_metrics(self, results: list) -> dict[str, float]:
        videos, labels = in_order(results)
        frames, canvas = videos.shape[1], videos.shape[-1]
        real = moving_digits(self.num_real, num_frames=frames, canvas=canvas)[0] / 255
        recognised = recognised_frames(videos, labels)
        real_features = clip_features(real)
        return dict(
            recognised_clips=float(100 * recognised.all(axis=1).mean()),
            recognised_frames=float(100 * recognised.mean()),
            classifier_held_out=100 * centred_digits_classifier().held_out_accuracy,
            lawful_motion=float(100 * lawful_steps(videos).mean()),
            speed=_speed(videos),
            speed_real=_speed(real),
            frechet=features_distance(clip_features(videos), real_features),
            frechet_real_halves=halves_distance(real_features),
            num_samples=float(len(results)),
        )


def _speed(videos: np.ndarray) -> float:
    steps = np.diff(centres_of_mass(videos), axis=1)
    return float(np.linalg.norm(steps, axis=-1).mean())

"""Handwritten digits that move over a canvas: real pixels, known motion, no download."""

import numpy as np
import torch

from mmsparsedit.utils.uint8 import to_uint8

from .digits import digits_images

CANVAS = 16  # side in pixels; a digit has 8
VIDEO_FRAMES = 8
STEP = 4  # pixels per frame, along either axis
VELOCITIES = tuple(
    (vy, vx) for vy in (-STEP, 0, STEP) for vx in (-STEP, 0, STEP) if (vy, vx) != (0, 0)
)


def bounce(start: int, velocity: int, num_frames: int, room: int) -> np.ndarray:
    """Positions 0 ... room of a point that turns back at both ends, (num_frames,)."""
    path = (start + velocity * np.arange(num_frames)) % (2 * room)
    return np.where(path > room, 2 * room - path, path)


def moving_digits(
    num_videos: int, seed: int = 0, num_frames: int = VIDEO_FRAMES, canvas: int = CANVAS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Videos of one digit each, moving by one of eight velocities and bouncing off the edges.

    Every image of scikit-learn's digits comes equally often.

    Returns:
        videos (n, F, canvas, canvas) uint8, labels (n,) 0 ... 9, positions of the upper left
        corner (n, F, 2) as (row, column) in pixels.
    """
    images, labels = digits_images()  # [-1, 1]
    side = images.shape[-1]
    if canvas <= side or (canvas - side) % STEP:
        raise ValueError(
            f'canvas must exceed the {side} pixels of a digit by a multiple of {STEP}, '
            f'got {canvas}.'
        )
    images = to_uint8(torch.from_numpy(images), 'round').numpy()
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(len(images)) for _ in range(-(-num_videos // len(images)))]
    )[:num_videos]
    room = canvas - side
    videos = np.zeros((num_videos, num_frames, canvas, canvas), np.uint8)
    positions = np.zeros((num_videos, num_frames, 2), np.int64)
    for i, image in enumerate(images[chosen]):
        velocity = VELOCITIES[rng.integers(len(VELOCITIES))]
        for axis in range(2):
            start = STEP * int(rng.integers(room // STEP + 1))
            positions[i, :, axis] = bounce(start, velocity[axis], num_frames, room)
        for frame, (top, left) in enumerate(positions[i]):
            videos[i, frame, top : top + side, left : left + side] = image
    return videos, labels[chosen], positions

"""Pictures in TensorBoard, WandB and MLflow while a model trains."""

import numpy as np
from PIL import Image


def show_picture(visualizer, name: str, picture: Image.Image, step: int) -> None:
    """Give ``picture`` to the backends of MMEngine's ``Visualizer`` that show pictures elsewhere.

    The local backend would write a second copy into the work dir and is left out. MLflow names a
    picture by a file, which needs its ending and, as it keeps one of each name, the step.
    """
    from mmengine.visualization import LocalVisBackend, MLflowVisBackend

    image = np.asarray(picture.convert('RGB'))  # (H, W, 3) uint8
    for backend in visualizer._vis_backends.values():
        if isinstance(backend, MLflowVisBackend):
            backend.add_image(f'{name}/iter_{step}.png', image, step)
        elif not isinstance(backend, LocalVisBackend):
            backend.add_image(name, image, step)

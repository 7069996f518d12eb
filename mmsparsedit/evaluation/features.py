"""Feature extractors of the metrics: the Inception of ADM's suite and the I3D of StyleGAN-V.

An extractor has a ``label``, says by ``random`` whether its numbers mean nothing, and names by
``description``, a dict of JSON values, all that decides its features.

Letters: N samples, F frames, C channels, H x W pixels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmsparsedit.registry import SCOPE, TASK_UTILS
from mmsparsedit.utils.files import first_line

from .inception_weights import (
    build_inception,
    random_inception_weights,
    read_inception_weights,
)
from .weight_files import I3D_FILES, INCEPTION_FILES, check_weights, find_weights

# ADM, evaluator.py: mixed_6/conv, first 7 of its 192 channels of 17 x 17
SPATIAL_CHANNELS = 7


class InceptionFeatures(NamedTuple):
    """What one pass of the Inception gives for N images, float32."""

    pool: Tensor  # (N, 2048), pool_3: FID, precision, recall
    spatial: Tensor  # (N, 2023), first channels of mixed_6/conv in NHWC order: sFID
    logits: Tensor  # (N, 1008), last layer without its bias: inception score


@TASK_UTILS.register_module()
class InceptionExtractor:
    """Inception of 2015-12-05 as ADM's suite uses it; pool, sFID map and logits in one pass.

    The network is torch-fidelity's ``inception-v3-compat``: images are resized to 299 x 299 by the
    bilinear rule of TensorFlow 1 and mapped to (x - 128) / 128. Computed in float32 whatever the
    autocast state, without TF32.

    Args:
        weights: path of a weight file (torch-fidelity's, or pytorch-fid's of the same weights);
            None looks for either in ``./checkpoints`` and in torch.hub's folder.
        download: fetch torch-fidelity's file to torch.hub's folder if none is found.
        device: where the network runs.
        sha256: of the file; by default a file under a published name must have the published one.

    Raises:
        FileNotFoundError: no weights; says which, where looked, and how to get them.
        ValueError: the file is damaged, another one than expected, or holds another network.
    """

    label = 'inception-2015-12-05'
    random = False

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        download: bool = True,
        device: str | torch.device = 'cpu',
        sha256: str | None = None,
    ) -> None:
        path = find_weights(weights, INCEPTION_FILES, download)
        digest = check_weights(path, INCEPTION_FILES, sha256)
        self._set_network(build_inception(read_inception_weights(path)), device)
        self.description = {'name': self.label, 'weights': path.name, 'sha256': digest}

    def _set_network(self, network: nn.Module, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self._branch: Tensor | None = None
        # the 1x1 branch after its ReLU; a hook, because the network does not return it
        self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep_branch)

    def _keep_branch(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._branch = output

    @torch.no_grad()
    def __call__(self, images: Tensor) -> InceptionFeatures:
        """Features of images (N, 3, H, W), uint8."""
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(
                f'got images {tuple(images.shape)} of {images.dtype}, expected (N, 3, H, W) of '
                'torch.uint8: convert with mmsparsedit.utils.uint8.to_uint8'
            )
        with _full_precision(self.device):
            pool, logits = self.network(images.to(self.device))
        branch = self._branch[:, :SPATIAL_CHANNELS]  # (N, 7, 17, 17)
        self._branch = None
        return InceptionFeatures(pool, flatten_spatial(branch), logits)


@TASK_UTILS.register_module()
class RandomInception(InceptionExtractor):
    """Inception with seeded random weights, for tests and demos only: its numbers mean nothing.

    Results are labelled with its name. It never stands in for missing weights by itself.
    """

    label = 'random-inception'
    random = True

    def __init__(self, seed: int = 0, device: str | torch.device = 'cpu') -> None:
        self._set_network(build_inception(random_inception_weights(seed)), device)
        self.description = {'name': self.label, 'seed': seed}


@TASK_UTILS.register_module()
class I3DExtractor:
    """I3D features of videos (N, 400) from a TorchScript file, called as StyleGAN-V calls it.

    The script is called with ``rescale=True, resize=True, return_features=True`` on floats in
    0 ... 255 of shape (N, C, F, H, W); it rescales and resizes by itself.

    Args:
        weights: path of ``i3d_torchscript.pt`` or of a script with the same call signature; None
            looks in ``./checkpoints`` and in torch.hub's folder. Nothing is downloaded.
        device: where the network runs.
        sha256: of a script of your own. A script runs as code: only StyleGAN-V's published file is
            loaded without it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another SHA-256, or no TorchScript.
    """

    label = 'i3d-torchscript'
    random = False

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        device: str | torch.device = 'cpu',
        sha256: str | None = None,
    ) -> None:
        path = find_weights(weights, I3D_FILES)
        digest = check_weights(path, I3D_FILES, sha256, runs_code=True)
        self.device = torch.device(device)
        try:
            self.network = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            raise ValueError(
                f'got {path}, expected a TorchScript file: fetch it again ({first_line(error)})'
            ) from error
        self.description = {'name': self.label, 'weights': path.name, 'sha256': digest}

    @torch.no_grad()
    def __call__(self, videos: Tensor) -> Tensor:
        """Features of videos (N, F, 3, H, W), uint8."""
        if videos.ndim != 5 or videos.shape[2] != 3 or videos.dtype != torch.uint8:
            raise ValueError(
                f'got videos {tuple(videos.shape)} of {videos.dtype}, expected (N, F, 3, H, W) of '
                'torch.uint8'
            )
        videos = videos.to(self.device, torch.float32).transpose(1, 2).contiguous()  # (N,C,F,H,W)
        with _full_precision(self.device):
            return self.network(videos, rescale=True, resize=True, return_features=True).float()


def build_extractor(extractor, default: type, device: str | torch.device):
    """An extractor from a config dict, an instance (returned as it is) or None (the default)."""
    if extractor is None:
        return default(device=device)
    if isinstance(extractor, dict):
        return TASK_UTILS.build({'_scope_': SCOPE, 'device': device, **extractor})
    return extractor


def flatten_spatial(branch: Tensor) -> Tensor:
    """Feature map (N, 7, 17, 17) to (N, 2023) in NHWC order, the order of ADM's references."""
    return branch.permute(0, 2, 3, 1).flatten(1).float()


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Float32 without autocast and without TF32, which would move FID in its third digit."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul) if device.type == 'cuda' else ()
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value

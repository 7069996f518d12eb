"""A linear autoencoder: the principal components of the patches of a data set's images.

B images, C channels of a latent, P patch side, h x w = H / P x W / P cells.
"""

from functools import cached_property

import torch
from torch import Tensor

from mmsparsedit.registry import DATASETS, MODELS


@MODELS.register_module()
class PatchPCA:
    """Latents (B, C, h, w) of images (B, 3, H, W): C principal components of patches of P x P.

    For drawings in flat colours a third of the components keeps nearly everything. It is fitted at
    first use, from ``dataset`` alone and always alike. Latents have a mean of 0 and, over all
    components, a variance of 1; the components keep their differing variances, so that squared
    errors of latents are those of pixels up to a factor.

    Args:
        dataset: items have ``inputs`` (3, H, W) in [-1, 1].
        patch: P.
        channels: C, at most 3 P^2.
    """

    def __init__(self, dataset: dict, patch: int = 4, channels: int = 16) -> None:
        if not 1 <= channels <= 3 * patch**2:
            raise ValueError(
                f'PatchPCA: got {channels} channels for patches of {patch} x {patch}, expected 1 '
                f'to {3 * patch**2}.'
            )
        self._dataset = dataset
        self.patch = patch
        self.latent_channels = channels

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along a side."""
        return self.patch

    @cached_property
    def _fitted(self) -> tuple[Tensor, Tensor, float]:
        """Mean (3 P^2,), components (C, 3 P^2), and the scale of the latents."""
        items = DATASETS.build(self._dataset)
        images = torch.stack([items[i]['inputs'] for i in range(len(items))])
        patches = self._patches(images.double()).flatten(0, 2)  # (B h w, 3 P^2)
        mean = patches.mean(dim=0)
        variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean))
        components = vectors.flip(1)[:, : self.latent_channels].T
        # the sign of an eigenvector is arbitrary: its largest entry is positive
        largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        components = components * largest.sign()
        kept = variances.flip(0)[: self.latent_channels] / len(patches)
        return mean.float(), components.float(), kept.mean().sqrt().item()

    def _patches(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, 3 P^2)."""
        p = self.patch
        if images.ndim != 4 or images.shape[1] != 3 or any(s % p for s in images.shape[2:]):
            raise ValueError(
                f'PatchPCA: got images of shape {tuple(images.shape)}, expected (B, 3, H, W) with '
                f'sides that {p} divides.'
            )
        return images.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).flatten(3)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        mean, components, scale = self._fitted
        patches = self._patches(images.float()) - mean.to(images.device)
        return (patches @ components.T.to(images.device) / scale).permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] (not clamped), of latents (B, C, h, w)."""
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f'PatchPCA.decode: got latents of shape {tuple(latents.shape)}, expected '
                f'(B, {self.latent_channels}, h, w).'
            )
        mean, components, scale = (
            part.to(latents) if isinstance(part, Tensor) else part for part in self._fitted
        )
        patches = (latents.permute(0, 2, 3, 1) * scale) @ components + mean
        p = self.patch
        patches = patches.unflatten(3, (3, p, p)).permute(0, 3, 1, 4, 2, 5)  # (B, 3, h, P, w, P)
        return patches.flatten(4, 5).flatten(2, 3)

    def check(self) -> None:
        """Fit it now, so that what is missing is said before a training.

        Raises:
            ImportError: the package that carries the images is not installed.
        """
        _ = self._fitted

    def __repr__(self) -> str:
        return f'PatchPCA(patch={self.patch}, channels={self.latent_channels})'

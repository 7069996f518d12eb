"""Autoencoders between images and latents: AutoencoderKL of diffusers, Stable Diffusion's VAE."""

import torch
from torch import Tensor

from mmsparsedit.registry import MODELS

from .pretrained import DTYPES, Pretrained, weights_digest


@MODELS.register_module()
class DiffusersVAE(Pretrained):
    """diffusers' AutoencoderKL (Rombach et al. 2022), loaded at first use; DiT's ``sd-vae-ft-ema``.

    It follows its inputs to their device. Frozen, in eval mode, without gradients.

    Shapes: images (B, 3, H, W) in [-1, 1]; latents (B, C, H / factor, W / factor). The network
    sees ``z * scale_factor``; this class neither multiplies nor divides unless asked to.

    Args:
        pretrained: folder with ``config.json`` and weights, or a name such as
            ``stabilityai/sd-vae-ft-ema`` of a copy that is on this machine already.
        scale_factor: 1 / standard deviation of the latents; 0.18215 for Stable Diffusion 1 and 2.
        dtype: of the computation, ``'float32'``, ``'bfloat16'`` or ``'float16'``.
        channels_last: memory format of the convolutions; quicker on recent GPUs.
        batch_size: images a call decodes or encodes at once; larger batches are split.
        local_files_only: False lets diffusers download a model that is not on this machine.
        subfolder: folder inside ``pretrained`` that holds the VAE, e.g. ``'vae'`` of a pipeline.

    Raises:
        FileNotFoundError: at construction, when ``pretrained`` looks like a folder but is none or
            holds no autoencoder; at first use, when no local copy of a name exists.
        ValueError: unknown dtype, wrong shape of images or latents.
    """

    library = 'diffusers'
    wanted = (
        'the folder that holds config.json and diffusion_pytorch_model.safetensors, e.g. a copy of '
        "stabilityai/sd-vae-ft-ema (of a whole pipeline, subfolder='vae')"
    )

    def __init__(
        self,
        pretrained: str,
        scale_factor: float = 0.18215,
        dtype: str = 'float32',
        channels_last: bool = False,
        batch_size: int = 16,
        local_files_only: bool = True,
        subfolder: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'DiffusersVAE: got dtype={dtype!r}, expected one of {list(DTYPES)}')
        if batch_size < 1:
            raise ValueError(f'DiffusersVAE: got batch_size={batch_size}, expected at least 1')
        super().__init__(pretrained, local_files_only, subfolder)
        self.scale_factor = scale_factor
        self.dtype = DTYPES[dtype]
        self.channels_last = channels_last
        self.batch_size = batch_size
        self._vae: torch.nn.Module | None = None

    @property
    def vae(self) -> torch.nn.Module:
        """The AutoencoderKL of diffusers, loaded when first asked for."""
        if self._vae is None:
            self._vae = self._load()
        return self._vae

    def _load(self) -> torch.nn.Module:
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise self.not_installed() from error
        try:
            vae = AutoencoderKL.from_pretrained(
                self.pretrained,
                subfolder=self.subfolder,
                local_files_only=self.local_files_only,
                torch_dtype=self.dtype,
                low_cpu_mem_usage=False,  # True needs accelerate
            )
        except (OSError, ValueError) as error:
            raise self.unreadable(error, 'weights') from error
        vae.requires_grad_(False).eval()
        return vae.to(memory_format=torch.channels_last) if self.channels_last else vae

    def _ready(self, x: Tensor) -> Tensor:
        """``x`` as the VAE takes it, and the VAE on the device of ``x``."""
        if next(self.vae.parameters()).device != x.device:
            self.vae.to(x.device)
        x = x.to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    @property
    def latent_channels(self) -> int:
        """C, 4 for Stable Diffusion 1 and 2."""
        return self.vae.config.latent_channels

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along a side, 8 for Stable Diffusion."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, unscaled, float32.

        Args:
            images: (B, 3, H, W) in [-1, 1], H and W multiples of the downsampling.

        Returns:
            Two tensors (B, C, H / factor, W / factor); diffusers clamps the log-variance to
            [-30, 20].
        """
        factor = self.downsampling
        if images.ndim != 4 or images.shape[1] != 3 or any(s % factor for s in images.shape[2:]):
            raise ValueError(
                f'DiffusersVAE.encode: got images of shape {tuple(images.shape)}, expected '
                f'(B, 3, H, W) with sides that {factor} divides. Crop or resize the images.'
            )
        means, logvars = [], []
        for batch in images.split(self.batch_size):
            posterior = self.vae.encode(self._ready(batch)).latent_dist
            means.append(posterior.mean.float())
            logvars.append(posterior.logvar.float())
        return torch.cat(means), torch.cat(logvars)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) float32, about [-1, 1] (not clamped), of unscaled latents.

        Args:
            latents: (B, C, h, w), a sample of the network divided by ``scale_factor``.
        """
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f'DiffusersVAE.decode: got latents of shape {tuple(latents.shape)}, expected '
                f'(B, {self.latent_channels}, h, w). Fold the frames of a video into the batch.'
            )
        images = [self.vae.decode(self._ready(z)).sample for z in latents.split(self.batch_size)]
        return torch.cat([batch.float() for batch in images])

    def digest(self) -> str:
        """SHA-256 of the weights."""
        return weights_digest(self.vae)

    def __repr__(self) -> str:
        return f'DiffusersVAE({self.pretrained!r}, scale_factor={self.scale_factor})'

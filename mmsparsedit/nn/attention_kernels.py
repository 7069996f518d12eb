"""Which of PyTorch's fused kernels computes attention: its own choice, or the quickest measured.

B batch, H heads, N queries, K keys, D width of a head.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

FEATURES = 8  # that a mask takes in the keys: the kernels want widths that are multiples of 8
FAR = 1e4  # a score below every other: its exponential is exactly zero


class Kernel(NamedTuple):
    """A way to compute attention: a backend, the mask as an argument or in the keys."""

    backend: SDPBackend
    mask_in_keys: bool = False


CANDIDATES = (
    Kernel(SDPBackend.FLASH_ATTENTION),
    Kernel(SDPBackend.CUDNN_ATTENTION),
    Kernel(SDPBackend.EFFICIENT_ATTENTION),
)
MASKED = (
    Kernel(SDPBackend.CUDNN_ATTENTION),
    Kernel(SDPBackend.EFFICIENT_ATTENTION),
    Kernel(SDPBackend.FLASH_ATTENTION, mask_in_keys=True),
)


class ChosenKernels:
    """The kernel of each shape: ``measure`` finds it, once, and it is kept.

    Args:
        seconds: of a call of a function, e.g. ``clock.timed`` for a device.
        candidates, masked: kernels to try, without and with a mask.
        tell: called with a line for each choice.
    """

    def __init__(
        self,
        seconds: Callable[[Callable], float],
        candidates: tuple[Kernel, ...] = CANDIDATES,
        masked: tuple[Kernel, ...] = MASKED,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.seconds, self.candidates, self.masked, self.tell = seconds, candidates, masked, tell
        self.table: dict[Hashable, Kernel | None] = {}

    def of(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Kernel | None:
        """The kernel for these shapes, measured when they are new; None is PyTorch's own choice.

        What is being compiled only looks the shape up: it has to be met before.
        """
        key = (tuple(q.shape), k.shape[-2], str(q.dtype), mask is not None)
        if key not in self.table:
            self.table[key] = self._measured(q, k, v, mask)
            self.tell(f'attention of {key}: {self.table[key] or "chosen by PyTorch"}')
        return self.table[key]

    def _measured(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Kernel | None:
        quickest: dict[Kernel | None, float] = {}
        for kernel in (None, *(self.candidates if mask is None else self.masked)):
            try:
                run_kernel(kernel, q, k, v, mask)  # and warm up
            except RuntimeError:  # not for this device, width or dtype
                continue
            quickest[kernel] = self.seconds(lambda kernel=kernel: run_kernel(kernel, q, k, v, mask))
        return min(quickest, key=quickest.__getitem__)


def attention(
    kernels: ChosenKernels | None, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Attention by the kernel chosen for these shapes; arguments of ``run_kernel``."""
    if kernels is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return run_kernel(kernels.of(q, k, v, mask), q, k, v, mask)


def run_kernel(
    kernel: Kernel | None, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention (B, H, N, D) of ``q`` to ``k`` and ``v`` (B, H, K, D) by one kernel.

    Args:
        mask: (B, 1, 1, K), True for keys that are read; None for all.
    """
    if kernel is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with sdpa_kernel(kernel.backend):
        if mask is None or not kernel.mask_in_keys:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return _mask_in_keys(q, k, v, mask)


def _mask_in_keys(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """A kernel without a mask reads one: a further feature of a key is 0, or far below.

    Kernels compute heads of 72 in tiles of 96, so that 80 cost them nothing more.
    """
    width, scale = q.shape[-1], q.shape[-1] ** -0.5
    far = torch.where(mask, 0.0, -FAR / scale).to(k.dtype)  # (B, 1, 1, K)
    k = F.pad(k, (0, FEATURES))
    k[..., width] = far[:, :, 0].expand(k.shape[:-1])
    q = F.pad(q, (0, FEATURES), value=1.0)  # of which all but the first meet zeros
    out = F.scaled_dot_product_attention(q, k, F.pad(v, (0, FEATURES)), scale=scale)
    return out[..., :width]

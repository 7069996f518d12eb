"""Which attention a benchmark runs: PyTorch's fused kernels, or the score matrix written out."""

from contextlib import nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from mmsparsedit.nn import Attention

ATTENTIONS = ('fused', 'unfused')


def attention_kernel(generator, attention: str, device: str, dtype: torch.dtype) -> str:
    """The kernel that PyTorch takes for self-attention on the dense tokens of an image or frame."""
    if attention == 'unfused':
        return 'written out'
    found = [m for m in generator.network.modules() if isinstance(m, Attention)]
    if not found or not hasattr(torch, '_fused_sdp_choice'):
        return 'chosen by PyTorch'
    height, width = generator.network.token_grid[-2:]
    heads, channels = found[0].num_heads, found[0].proj.in_features
    q = torch.empty(1, heads, height * width, channels // heads, device=device, dtype=dtype)
    chosen = torch._fused_sdp_choice(q, q, q)
    return {int(b): name for name, b in SDPBackend.__members__.items()}.get(chosen, str(chosen))


def run_attention(attention: str):
    """Within this context attention is ``'fused'``, PyTorch's choice, or ``'unfused'``."""
    unfused = patch.object(F, 'scaled_dot_product_attention', written_out_attention)
    return unfused if attention == 'unfused' else nullcontext()


def written_out_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None):
    """Attention through its score matrix, as in DiT before fused kernels: (..., N, D).

    Not ``SDPBackend.MATH``: that multiplies bf16 in float32 and looks for rows without any key,
    four more passes over the scores, by which a dense baseline would lose more than a sparse model.
    """
    with torch.autocast(q.device.type, enabled=False):  # softmax of bf16 adds up in float32 anyway
        k, v = k.to(q.dtype), v.to(q.dtype)  # as autocast does for the fused kernels
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        return scores.softmax(dim=-1) @ v

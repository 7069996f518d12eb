"""Transformer blocks modulated by a condition (adaLN-Zero, DiT), and the last layer.

B batch, N tokens, C width. Tokens may carry further leading dimensions, (B, ..., N, C): the
condition (B, C) is then shared by all sequences of a sample.
"""

import torch
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .attention import Attention, PoolingAttention


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def layer_norm(hidden_size: int) -> nn.LayerNorm:
    return nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)


class AdaLNModulation(nn.Sequential):
    """Condition (B, C) -> ``chunks`` tensors (B, 1, C) that broadcast over tokens of ``ndim``."""

    def __init__(self, hidden_size: int, chunks: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(hidden_size, chunks * hidden_size))
        self.chunks = chunks

    def forward(self, c: Tensor, ndim: int = 3) -> tuple[Tensor, ...]:
        out = super().forward(c)
        return out.view(c.shape[0], *[1] * (ndim - 2), -1).chunk(self.chunks, dim=-1)


class Mlp(nn.Module):
    """Linear, GELU (tanh), linear.

    ``gelu_epilogue`` of a module leaves the GELU to the matrix product, which saves a pass over the
    hidden tokens: without gradients, on CUDA and, where ``has_cpu_epilogue``, on CPUs.
    """

    fp8_linears = ('fc1', 'fc2')
    gelu_epilogue = False

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        inner = int(hidden_size * mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, inner)
        self.act = nn.GELU(approximate='tanh')
        self.fc2 = nn.Linear(inner, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gelu_epilogue:
            return self.fc2(self.act(self.fc1(x)))
        weight, bias = self.fc1.weight, self.fc1.bias
        rows = x.flatten(0, -2).to(weight.dtype)  # autocast does not know these operators
        if x.device.type == 'cpu':  # oneDNN, as Inductor calls it: the other has another GELU there
            hidden = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, 'gelu', [], 'tanh')
        else:
            hidden = torch._addmm_activation(bias, rows, weight.t(), use_gelu=True)
        return self.fc2(hidden.unflatten(0, x.shape[:-1]))

    @property
    def has_cpu_epilogue(self) -> bool:
        """Whether a CPU can take the GELU into the first product: float32, no wrapped linear."""
        fits = type(self.fc1) is nn.Linear and self.fc1.weight.dtype == torch.float32
        return fits and torch.backends.mkldnn.is_available()


@MODELS.register_module()
class TransformerBlock(nn.Module):
    """The DiT block, whose attention reads ``x`` itself or other tokens.

    ``x`` is the residual base and gives the queries; ``context``, normalised and modulated by the
    same shift and scale, gives keys and values. With no context this is DiT's block. Token
    generation (Eq. 2) reads the dense tokens from sparse ones, recovery (Eq. 4) the other way.
    """

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = self.build_attention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio)
        self.adaLN_modulation = AdaLNModulation(hidden_size, 6)

    def build_attention(self, hidden_size: int, num_heads: int) -> nn.Module:
        return Attention(hidden_size, num_heads)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Modulation zero: a new block passes its tokens on (DiT's adaLN-Zero)."""
        nn.init.zeros_(self.adaLN_modulation[1].weight)

    def forward(self, x: Tensor, c: Tensor, context: Tensor | None = None) -> Tensor:
        """Update tokens ``x`` (B, N, C) under condition ``c`` (B, C), reading ``context``."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c, x.ndim)
        h = modulate(self.norm1(x), shift1, scale1)
        if context is None:
            attended = self.attn(h)
        else:
            attended = self.attn(h, modulate(self.norm1(context), shift1, scale1))
        x = x + gate1 * attended
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


@MODELS.register_module()
class PoolingFormerBlock(TransformerBlock):
    """A block without queries and keys: the attention map is constant (SparseDiT, Eq. 1).

    ``num_heads`` is taken so that every block is built alike; a mean has no heads.
    """

    def build_attention(self, hidden_size: int, num_heads: int) -> nn.Module:
        return PoolingAttention(hidden_size)


class FinalLayer(nn.Module):
    """Tokens (B, ..., N, C) and condition (B, C) -> patches (B, ..., N, p * p * C_out)."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.adaLN_modulation = AdaLNModulation(hidden_size, 2)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Modulation and output zero."""
        nn.init.zeros_(self.adaLN_modulation[1].weight)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c, x.ndim)
        return self.linear(modulate(self.norm_final(x), shift, scale))

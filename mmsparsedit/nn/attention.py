"""Attention between tokens, and attention whose map is constant.

B batch, N queries, K keys, C width; further leading dimensions are treated as batch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .attention_kernels import ChosenKernels, attention


class Attention(nn.Module):
    """Multi-head attention from tokens to themselves or to a context (SparseDiT, Eq. 2 and 4).

    One ``qkv`` weight ``[3C, C]`` laid out as in DiT serves both: with a context its first C rows
    make the queries from ``x`` and the other 2C rows keys and values from ``context``, so a layer
    keeps the weights of the dense layer of its index whatever it reads.

    ``fp8_linears`` of a module names its linear maps that may compute in float8, ``kernels`` what
    chooses its kernel (None: PyTorch).
    """

    fp8_linears = ('qkv', 'proj')
    kernels: ChosenKernels | None = None

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(
                f'hidden_size {hidden_size} is not divisible by num_heads {num_heads}: '
                'every head needs the same width.'
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from ``x`` (..., N, C) to ``context`` (..., K, C), by default to ``x`` itself."""
        return self.attend(*self.project(x, context))

    def project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (..., N, C), keys and values (..., K, C)."""
        C = x.shape[-1]
        if context is None:
            return self.qkv(x).chunk(3, dim=-1)
        if not isinstance(self.qkv, nn.Linear):  # wrapped (LoRA): only a call is the whole map
            return self.qkv(x)[..., :C], *self.qkv(context)[..., C:].chunk(2, dim=-1)
        # split, not slices: its backward is one concatenation
        w_q, w_kv = self.qkv.weight.split([C, 2 * C])
        b_q, b_kv = self.qkv.bias.split([C, 2 * C])
        return F.linear(x, w_q, b_q), *F.linear(context, w_kv, b_kv).chunk(2, dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Projected result (..., N, C) of queries (..., N, C), keys and values (..., K, C)."""
        out = attention(
            self.kernels, *map(self.split_heads, (q, k, v))
        )  # (B', heads, N, C / heads)
        return self.proj(out.transpose(1, 2).reshape(q.shape))

    def split_heads(self, x: Tensor) -> Tensor:
        """(..., N, C) -> (B', heads, N, C / heads)."""
        # the fused kernels want exactly four dimensions
        x = x.reshape(-1, *x.shape[-2:])
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class PoolingAttention(nn.Module):
    """Attention with a constant map: every token receives the mean of the values (Eq. 1).

    The mean commutes with the two linear maps, ``proj(mean(V(x))) = proj(V(mean(x)))``, so it is
    taken first and both maps see one token instead of N. There are no queries and no keys, and
    heads make no difference to a mean.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_size, hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., N, C) to the (..., 1, C) that every token receives."""
        return self.proj(self.v(x.mean(dim=-2, keepdim=True)))

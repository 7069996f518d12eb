"""A bottom block of our own: tokens receive the maximum of the values instead of their mean."""

from torch import Tensor, nn

from mmsparsedit.nn import TransformerBlock
from mmsparsedit.registry import MODELS


class MaxPoolingAttention(nn.Module):
    """(B, N, C) -> (B, 1, C), which every token receives."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_size, hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        # a maximum does not commute with the linear map: values come first here
        return self.proj(self.v(x).amax(dim=-2, keepdim=True))


@MODELS.register_module()
class MaxPoolingBlock(TransformerBlock):
    """A transformer block whose attention is a maximum over tokens."""

    def build_attention(self, hidden_size: int, num_heads: int) -> nn.Module:
        return MaxPoolingAttention(hidden_size)

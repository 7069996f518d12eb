"""Token merging of ToMe for diffusion (Bolya and Hoffman 2023): similar tokens share one.

Before a layer's attention, and its MLP if asked, the r most similar of the source tokens are
averaged into their nearest destination token; afterwards each gets that token's output. One token
of each window of s x s is a destination, drawn anew at each call; all others are sources. B batch,
N = H * W dense tokens, C width, D destinations, L layers that merge.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsparsedit.nn import Attention, SparseTransformer
from mmsparsedit.nn.flops import register_cost
from mmsparsedit.registry import MODELS

from .linked import blocks_of, linked_copy
from .method import Run, whole_number

for _operation in ('argsort', 'scatter', 'scatter_', 'scatter_reduce', 'linalg_vector_norm'):
    register_cost(f'aten::{_operation}', None)


@dataclass(frozen=True)
class Matching:
    """Which tokens become one.

    Attributes:
        sources: (N - D,) and ``destinations`` (D,), places of tokens.
        kept: (B, N - D - r), sources that stay, as indices of ``sources``.
        merged: (B, r), sources that are merged, likewise.
        into: (B, r), indices of ``destinations``.
    """

    sources: Tensor
    destinations: Tensor
    kept: Tensor
    merged: Tensor
    into: Tensor

    def merge(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N - r, C): sources that stay, then destinations, averaged."""
        sources, destinations = x[:, self.sources], x[:, self.destinations]
        merged = _rows(sources, self.merged)
        into = self.into.unsqueeze(-1).expand_as(merged)
        destinations = destinations.scatter_reduce(1, into, merged, 'mean')
        return torch.cat([_rows(sources, self.kept), destinations], dim=1)

    def unmerge(self, y: Tensor) -> Tensor:
        """(B, N - r, C) -> (B, N, C): a merged token gets what its destination has."""
        kept = self.kept.shape[1]
        batch = len(y)
        place = torch.cat([self.sources, self.destinations])  # of a token, by where it is found
        first = torch.arange(kept, device=y.device).expand(batch, kept)
        last = kept + torch.arange(len(self.destinations), device=y.device).expand(batch, -1)
        source = torch.zeros_like(torch.cat([self.kept, self.merged], dim=1))
        source = source.scatter(1, self.kept, first).scatter(1, self.merged, kept + self.into)
        found = torch.cat([source, last], dim=1)  # (B, N): the row of y of each, in that order
        found = torch.zeros_like(found).scatter(1, place.expand(batch, -1), found)
        return _rows(y, found)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, n, C) at (B, k) -> (B, k, C)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def match(x: Tensor, grid: tuple[int, int], stride: int, choice: Tensor, r: int) -> Matching:
    """Bipartite soft matching of tokens (B, N, C) on a grid (H, W), by cosine similarity.

    Args:
        stride: s, the side of a window. Rows and columns beyond the last whole window are sources.
        choice: (H // s, W // s), which of the s * s tokens of each window is the destination.
        r: tokens to merge, as many as there are sources at most.
    """
    height, width = grid
    windows = (height // stride) * (width // stride)
    rows = torch.arange(height // stride, device=x.device)[:, None] * stride + choice // stride
    columns = torch.arange(width // stride, device=x.device) * stride + choice % stride
    marks = torch.zeros(height * width, dtype=torch.long, device=x.device)
    marks = marks.scatter(0, (rows * width + columns).flatten(), -torch.ones_like(choice).flatten())
    order = marks.argsort(stable=True)
    destinations, sources = order[:windows], order[windows:]
    unit = x / x.norm(dim=-1, keepdim=True)
    scores = unit[:, sources] @ unit[:, destinations].transpose(1, 2)  # (B, N - D, D)
    best, nearest = scores.max(dim=-1)
    by_score = best.argsort(dim=-1, descending=True)
    r = min(r, len(sources))
    merged = by_score[:, :r]
    return Matching(sources, destinations, by_score[:, r:], merged, nearest.gather(1, merged))


class Holder:
    """The matching of one block at one call; None where its tokens are not the dense ones."""

    def __init__(self, merging: 'TokenMerging', grid: tuple[int, int]) -> None:
        self.merging, self.grid = merging, grid
        self.matching: Matching | None = None


class MatchingNorm(nn.Module):
    """The first norm of a block, which sees its tokens: they are matched.

    ``choice`` (H // s, W // s) is rewritten in place before each call of the network.
    """

    def __init__(self, inner: nn.Module, holder: Holder, device: torch.device) -> None:
        super().__init__()
        self.inner, self.holder = inner, holder
        windows = [side // holder.merging.stride for side in holder.grid]
        choice = torch.zeros(windows, dtype=torch.long, device=device)
        self.register_buffer('choice', choice, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        (height, width), merging = self.holder.grid, self.holder.merging
        self.holder.matching = None
        if x.shape[-2] == height * width:
            r = int(x.shape[-2] * merging.ratio)
            matching = match(x, self.holder.grid, merging.stride, self.choice, r)
            self.holder.matching = matching
        return self.inner(x)


class Merged(nn.Module):
    """A branch that reads merged tokens and answers for all."""

    def __init__(self, inner: nn.Module, holder: Holder) -> None:
        super().__init__()
        self.inner, self.holder = inner, holder

    def forward(self, x: Tensor) -> Tensor:
        matching = self.holder.matching
        if matching is None:
            return self.inner(x)
        return matching.unmerge(self.inner(matching.merge(x)))


@MODELS.register_module()
class TokenMerging:
    """ToMeSD on a diffusion transformer (the paper's Table 8 applies it to DiT).

    Layers that read their own tokens merge them, where these are the dense ones, as ToMeSD does in
    the layers of full resolution. Sparse layers, token generation and recovery are left alone:
    their tokens are fewer already. A constant attention gains nothing and merges for its MLP only.

    Args:
        ratio: r / N, in [0, 1 - 1 / stride^2]: more sources than that there are not.
        stride: s.
        random: draw the destinations; the first of each window otherwise.
        mlp: merge before the MLP too. ToMeSD advises against it.
        seed: of the draws, which are the same in every trajectory.
    """

    def __init__(
        self,
        ratio: float = 0.5,
        stride: int = 2,
        random: bool = True,
        mlp: bool = False,
        seed: int = 0,
    ) -> None:
        self.stride = whole_number('stride of TokenMerging', stride, 2)
        most = 1 - 1 / self.stride**2
        if not 0 <= ratio <= most:
            raise ValueError(
                f'ratio of TokenMerging must be in [0, {most:g}] for stride {stride}, got {ratio}.'
            )
        self.ratio, self.random, self.mlp, self.seed = ratio, random, mlp, seed

    def check(self, network: SparseTransformer) -> None:
        if len(network.token_grid) != 2:
            raise ValueError(
                f'TokenMerging matches tokens of an image, and the token grid of the network is '
                f'{tuple(network.token_grid)}: leave merge out.'
            )
        if min(network.token_grid) < self.stride:
            raise ValueError(
                f'stride {self.stride} of TokenMerging exceeds the token grid '
                f'{tuple(network.token_grid)}: lower it.'
            )

    def merged(self, network: SparseTransformer) -> nn.Module:
        """The network with its merging layers, sharing all weights."""
        copied = linked_copy(network)
        reading_others = {
            id(getattr(layer, 'block', layer))
            for module in copied.middle
            for group in (module.generation, module.recovery)
            for layer in group
        }
        device = next(network.parameters()).device
        for block in list(blocks_of(copied)):
            attention = isinstance(block.attn, Attention)
            if id(block) in reading_others or not (attention or self.mlp):
                continue
            holder = Holder(self, tuple(network.token_grid))
            block.norm1 = MatchingNorm(block.norm1, holder, device)
            if attention:
                block.attn = Merged(block.attn, holder)
            if self.mlp:
                block.mlp = Merged(block.mlp, holder)
        return copied

    def drawn(self, merged: nn.Module, run: Run, num_calls: int) -> Run:
        """``run`` with destinations drawn before each of its calls."""
        buffers = [m.choice for m in merged.modules() if isinstance(m, MatchingNorm)]
        if not self.random or not buffers:
            return run
        draw = torch.Generator().manual_seed(self.seed)
        size = (num_calls, len(buffers), *buffers[0].shape)
        choices = torch.randint(self.stride**2, size, generator=draw).to(buffers[0].device)
        index = 0

        def merging_run(*inputs, **options) -> Tensor:
            nonlocal index
            for buffer, choice in zip(buffers, choices[index % num_calls], strict=True):
                buffer.copy_(choice)
            index += 1
            return run(*inputs, **options)

        return merging_run

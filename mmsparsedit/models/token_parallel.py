"""One picture or clip on several processes: each holds some rows of the dense tokens.

Dense tokens are split by rows, the M sparse ones are held by all. Token generation exchanges what M
queries found (never keys of dense tokens), recovery needs nothing from others, sparse layers are
computed by each. Only layers among dense tokens gather keys and values, which in a dense model all
layers do.

B batch, N dense and M sparse tokens, n = N / processes dense tokens of this process, H heads, C
width.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor, nn

from mmsparsedit.nn import Attention, PoolingAttention, SparseTransformer
from mmsparsedit.nn.resample import Grid, pool_tokens


class Ranks:
    """The processes of a group and what they exchange, by torch's functional collectives.

    Args:
        group: by default all processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = dist.group.WORLD if group is None else group
        self.rank, self.world = dist.get_rank(self.group), dist.get_world_size(self.group)

    def sum(self, x: Tensor) -> Tensor:
        return collectives.all_reduce(x.contiguous(), 'sum', self.group)

    def max(self, x: Tensor) -> Tensor:
        return collectives.all_reduce(x.contiguous(), 'max', self.group)

    def cat(self, x: Tensor, dim: int) -> Tensor:
        """The tensors of all processes, one behind the other along ``dim``."""
        # of which torch 2.14 has renamed the second
        gather = getattr(collectives, 'all_gather_single', None) or collectives.all_gather_tensor
        return gather(x.contiguous(), dim % x.ndim, self.group)


class CountedRanks(Ranks):
    """What one of ``world`` processes would receive, counted without any exchange.

    Attributes:
        received: numbers that come from other processes; a sum over W processes is counted as
            2 (W - 1) / W of its size, as a ring brings them.
    """

    def __init__(self, world: int) -> None:
        self.rank, self.world, self.received = 0, world, 0.0

    def sum(self, x: Tensor) -> Tensor:
        self.received += 2 * (self.world - 1) / self.world * x.numel()
        return x

    max = sum

    def cat(self, x: Tensor, dim: int) -> Tensor:
        self.received += (self.world - 1) * x.numel()
        return torch.cat([x] * self.world, dim)


class TokenParallel(nn.Module):
    """A network whose dense tokens are split by rows among processes.

    Called like the network, in all processes with the same arguments; all get the whole output. It
    shares the weights and follows their changes. For sampling: gradients are not exchanged.

    Args:
        network: ``SparseDiT``, ``SparseLatte`` and others whose middle are SDTMs, or dense.
        ranks: the processes.

    Raises:
        ValueError: the rows of the token grid do not divide by the number of processes.
    """

    def __init__(self, network: SparseTransformer, ranks: Ranks | None = None) -> None:
        super().__init__()
        self.ranks = Ranks() if ranks is None else ranks
        rows = network.token_grid[-2]
        if rows % self.ranks.world:
            raise ValueError(
                f'{rows} rows of tokens (token grid {network.token_grid}) on {self.ranks.world} '
                f'processes: their number must divide the rows, e.g. {_divisor(rows)}.'
            )
        self.data_shape, self.token_grid = network.data_shape, network.token_grid
        self.network = part_of(network, self.ranks)

    def forward(self, x: Tensor, t: Tensor, *, grid: Grid | None = None, **condition: Any):
        """As the network's; of the built size only."""
        if x.shape[1:] != self.data_shape:
            raise ValueError(
                f'data of shape {tuple(x.shape[1:])}, expected {self.data_shape}: split by tokens '
                'a network runs at the size it was built for.'
            )
        own = x.chunk(self.ranks.world, dim=-2)[self.ranks.rank]
        return self.ranks.cat(self.network(own, t, grid=grid, **condition), dim=-2)

    def check_same(self, x: Tensor) -> None:
        """ValueError if the processes were called with different data; waits for the device."""
        sums = self.ranks.cat(x.double().sum().view(1), dim=0)
        if not torch.equal(sums, sums[:1].expand_as(sums)):
            raise ValueError(
                'token_parallel splits one batch among all processes, and they were given '
                'different ones: call sample with the same seeds and requests in each.'
            )

    def read_once(self, condition: dict) -> dict:
        return self.network.read_once(condition)

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        return self.network.named_layers()

    @property
    def final_layer(self) -> nn.Module:
        return self.network.final_layer


def part_of(network: SparseTransformer, ranks: Ranks) -> SparseTransformer:
    """The network for the rows of one process, sharing all weights.

    Its modules are copies; what looks beyond the rows of a process is replaced.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    part = copy.deepcopy(network, dict(shared))
    part._other_sizes = {}
    *frames, rows, columns = network.token_grid
    own = slice(ranks.rank * rows // ranks.world, (ranks.rank + 1) * rows // ranks.world)
    table = network.pos_embed.unflatten(1, (rows, columns))[:, own].flatten(1, 2)
    part.pos_embed = table
    height, width = network.input_size
    part.input_size = (height // ranks.world, width)
    part.data_shape = (*network.data_shape[:-2], *part.input_size)
    part.token_grid = (*frames, rows // ranks.world, columns)
    part.sparse_grid = network.sparse_grid  # a sparse grid is of the whole picture
    part.positions = _one_size  # the rows of another size are not worked out
    whole = network.token_grid[-2:]
    for i, layer in enumerate(part.bottom):
        if not (frames and i % 2):  # odd layers of a video work in time, within a position
            layer.attn = MeanOverRanks(layer.attn, ranks)
    for i, layer in enumerate(part.top, start=len(part.bottom)):
        if not (frames and i % 2):
            layer.attn = GatheringAttention(layer.attn, ranks)
    for module in part.middle:
        module.pool = PoolOfRows(ranks, whole, own)
        for layer in module.generation[:1] if frames else module.generation:
            layer.attn = AttentionOverRanks(layer.attn, ranks)
        for recovery in module.recovery[:1] if frames else module.recovery:
            recovery.spread = SpreadToRows(recovery.spread, whole, own)
        for layer in module.dense:
            layer.attn = GatheringAttention(layer.attn, ranks)
    return part


def _divisor(rows: int) -> int:
    return next(n for n in range(2, rows + 1) if rows % n == 0) if rows > 1 else 1


def _one_size(grid: Grid) -> Tensor:
    raise ValueError(f'token grid {grid}: split by tokens a network runs at one size only.')


class MeanOverRanks(nn.Module):
    """``PoolingAttention`` over the tokens of all processes."""

    def __init__(self, inner: PoolingAttention, ranks: Ranks) -> None:
        super().__init__()
        self.inner, self.ranks = inner, ranks

    def forward(self, x: Tensor) -> Tensor:
        mean = self.ranks.sum(x.mean(dim=-2, keepdim=True)) / self.ranks.world  # (..., 1, C)
        return self.inner(mean)


class GatheringAttention(nn.Module):
    """Attention among the dense tokens of all processes: (..., n, C) -> (..., n, C)."""

    def __init__(self, inner: Attention, ranks: Ranks) -> None:
        super().__init__()
        self.inner, self.ranks = inner, ranks

    def forward(self, x: Tensor) -> Tensor:
        q, kv = self.inner.qkv(x).split([x.shape[-1], 2 * x.shape[-1]], dim=-1)
        k, v = self.ranks.cat(kv, dim=-2).chunk(2, dim=-1)  # (..., N, C)
        return self.inner.attend(q, k, v)


class AttentionOverRanks(nn.Module):
    """Attention of M tokens that all hold to the dense tokens of all processes (Eq. 2).

    Each finds the numerator and the denominator of the softmax over its own keys; their sums over
    the processes are those of the whole: M (C + 2 H) numbers instead of the keys and values of N
    tokens.
    """

    def __init__(self, inner: Attention, ranks: Ranks) -> None:
        super().__init__()
        self.inner, self.ranks = inner, ranks

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = map(self.inner.split_heads, self.inner.project(x, context))
        counted = x.device.type == 'meta'  # which has no autocast
        with nullcontext() if counted else torch.autocast(x.device.type, enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B', H, M, n)
            top = self.ranks.max(scores.amax(dim=-1, keepdim=True))
            weights = (scores - top).exp()
            found = torch.cat([weights @ v, weights.sum(dim=-1, keepdim=True)], dim=-1)
        out, total = self.ranks.sum(found).split([v.shape[-1], 1], dim=-1)
        out = (out / total).transpose(1, 2).reshape(x.shape)
        return self.inner.proj(out)


class PoolOfRows:
    """``SDTM.pool`` of the whole grid from the rows of every process: (..., n, C) -> (..., M, C).

    Pooling is linear: the rest of the grid is zero here, and the results are added.
    """

    def __init__(self, ranks: Ranks, whole: Grid, own: slice) -> None:
        self.ranks, self.whole, self.own = ranks, whole, own

    def __call__(self, x: Tensor, dense_grid: Grid, grid: Grid) -> Tensor:
        columns, rows = self.whole[1], self.whole[0]
        around = (0, 0, self.own.start * columns, (rows - self.own.stop) * columns)
        return self.ranks.sum(pool_tokens(F.pad(x, around), self.whole, grid))


class SpreadToRows:
    """``TokenRecovery.spread`` onto the rows of this process: (..., M, C) -> (..., n, C)."""

    def __init__(self, spread: Callable, whole: Grid, own: slice) -> None:
        self.spread, self.whole, self.own = spread, whole, own

    def __call__(self, sparse: Tensor, grid: Grid, dense_grid: Grid) -> Tensor:
        columns = self.whole[1]
        dense = self.spread(sparse, grid, self.whole)
        return dense[..., self.own.start * columns : self.own.stop * columns, :]


def received_numbers(network: SparseTransformer, world: int, grid: Grid | None = None) -> float:
    """Numbers that each of ``world`` processes receives from others in a call on one sample.

    Args:
        network: on any device; nothing is computed.
    """
    from mmsparsedit.nn.meta import KnownShapes, on_meta

    ranks = CountedRanks(world)
    inputs = network.example_inputs(1, 'meta')
    with torch.no_grad(), KnownShapes():
        TokenParallel(on_meta(network), ranks)(**inputs, grid=grid)
    return ranks.received

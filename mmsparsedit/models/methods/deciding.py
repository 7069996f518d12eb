"""Caches that look at the data before they decide: FirstBlockCache and TeaCache.

A call is cut in two: what always runs, and the rest, of which the sum that it added to the tokens
is kept. In between the host reads one number of the whole batch, guidance's halves and all, as the
public codes do: a sample then depends a little on the others of its batch, and no CUDA graph can
hold the call. B batch, N dense tokens, C width.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer
from mmsparsedit.registry import MODELS

from .layer_cache import OneToken, branches_of
from .linked import linked_copy
from .method import Grid, Method, Parts, Ready, Run


class CutParts(Parts):
    """A network cut into ``begin``, which shows what a call is like, and the rest."""

    def begin(
        self, x: Tensor, t: Tensor, grid: Grid, condition: dict
    ) -> tuple[Tensor, Any, Tensor]:
        """Tokens (B, ..., N, C) that enter the rest, the condition, and what is judged by."""
        raise NotImplementedError

    first: ClassVar[int]  # bottom layers, SDTMs and top layers that ``begin`` has run

    def rest(self, tokens: Tensor, c: Any, grid: Grid) -> tuple[Tensor, Tensor]:
        """The output, and what the rest added to the tokens, (B, ..., N, C)."""
        left = tokens
        for step in self.network.steps(grid)[self.first :]:
            left = step(left, c)
        return self.network.head(left, c), left - tokens

    def end(self, tokens: Tensor, c: Any, kept: Tensor) -> Tensor:
        return self.network.head(tokens + kept, c)

    def compute(self, x: Tensor, t: Tensor, grid: Grid, condition: dict) -> tuple[Tensor, Tensor]:
        tokens, c, self.seen = self.begin(x, t, grid, condition)
        return self.rest(tokens, c, grid)

    def reuse(self, x: Tensor, t: Tensor, kept: Tensor, grid: Grid, condition: dict) -> Tensor:
        tokens, c, self.seen = self.begin(x, t, grid, condition)
        return self.end(tokens, c, kept)


class Judge:
    """Decides call by call whether what is kept will do."""

    def reuses(self, stage: tuple, seen: Tensor) -> bool:
        raise NotImplementedError


class DecidingMethod(Method):
    """A method whose calls are judged as they come.

    ``made`` holds what was decided since it was built: of each trajectory the size of its batch and
    which calls reused.
    """

    decides = True

    def __init__(self) -> None:
        self.made: list[tuple[int, list[bool]]] = []

    def judge(self, num_calls: int) -> Judge:
        raise NotImplementedError

    def trajectory(self, parts: CutParts, ready: Ready, num_calls: int) -> Run:
        judge, decisions = self.judge(num_calls), []
        kept = None

        def run(x: Tensor, t: Tensor, grid: Grid, condition: dict, guided: bool = False) -> Tensor:
            nonlocal kept
            if not decisions:
                self.made.append((len(x) // (1 + guided), decisions))
            stage = (grid, guided)

            def begin(x: Tensor, t: Tensor, condition: dict):
                return parts.begin(x, t, grid, condition)

            tokens, c, seen = ready(('begin', *stage), begin, static=False)(x, t, condition)
            reused = judge.reuses(stage, seen)
            decisions.append(reused)
            if reused:

                def end(tokens: Tensor, c: Any, kept: Tensor) -> tuple[Tensor]:
                    return (parts.end(tokens, c, kept),)

                return ready(('end', *stage), end, static=False)(tokens, c, kept)[0]

            def rest(tokens: Tensor, c: Any):
                return parts.rest(tokens, c, grid)

            output, kept = ready(('rest', *stage), rest, static=False)(tokens, c)
            return output

        return run


def relative_change(now: Tensor, before: Tensor) -> float:
    """Mean absolute difference over mean absolute value, of the whole batch."""
    return ((now - before).abs().mean() / before.abs().mean()).item()


def checked_threshold(threshold: float) -> float:
    if not threshold >= 0:
        raise ValueError(f'threshold must be a number of at least 0, got {threshold}.')
    return float(threshold)


class FirstBlockParts(CutParts):
    first = 1

    def __init__(self, network: SparseTransformer) -> None:
        super().__init__()
        self.network = network

    def begin(
        self, x: Tensor, t: Tensor, grid: Grid, condition: dict
    ) -> tuple[Tensor, Any, Tensor]:
        entered, c = self.network.embed(x, t, **condition)
        tokens = self.network.steps(grid)[0](entered, c)
        return tokens, c, tokens - entered


class FirstBlockJudge(Judge):
    def __init__(self, threshold: float) -> None:
        self.threshold, self.stage, self.before = threshold, None, None

    def reuses(self, stage: tuple, seen: Tensor) -> bool:
        if stage == self.stage and relative_change(seen, self.before) <= self.threshold:
            return True
        self.stage, self.before = stage, seen
        return False


@MODELS.register_module()
class FirstBlockCache(DecidingMethod):
    """All layers but the first, while what the first adds has hardly changed.

    A call reuses what the others added at the last whole call of its stage if the residual of the
    first layer differs from that call's by no more than ``threshold``, relative L1 (ParaAttention's
    first block cache; the same in diffusers).
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = checked_threshold(threshold)

    def check(self, network: SparseTransformer) -> None:
        if len(network.bottom) + len(network.middle) + len(network.top) < 2:
            raise ValueError('FirstBlockCache needs a second layer to spare, the network has one.')

    def parts(self, network: SparseTransformer) -> FirstBlockParts:
        return FirstBlockParts(network)

    def judge(self, num_calls: int) -> FirstBlockJudge:
        return FirstBlockJudge(self.threshold)


class Seen(nn.Module):
    """In place of an attention: remembers what it was given."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        self.given = x
        return x


class TeaCacheParts(CutParts):
    """``probe`` is the network with a first layer that only modulates its tokens."""

    linked = True

    first = 0

    def __init__(self, network: SparseTransformer) -> None:
        super().__init__()
        self.network = network
        layer = linked_copy(next(network.named_layers())[1])
        layer = getattr(layer, 'block', layer)
        for name in branches_of(layer):
            setattr(layer, name, nn.Identity() if name == 'mlp' else None)
        layer.attn, layer.norm2 = Seen(), OneToken()
        self.probe = layer

    def begin(
        self, x: Tensor, t: Tensor, grid: Grid, condition: dict
    ) -> tuple[Tensor, Any, Tensor]:
        tokens, c = self.network.embed(x, t, **condition)
        self.network.run_layer(0, self.probe, tokens, c)
        return tokens, c, self.probe.attn.given


class TeaCacheJudge(Judge):
    def __init__(self, threshold: float, coefficients: Sequence[float], num_calls: int) -> None:
        self.threshold, self.rescale = threshold, np.poly1d(coefficients)
        self.num_calls, self.index = num_calls, -1
        self.stage, self.before, self.sum = None, None, 0.0

    def reuses(self, stage: tuple, seen: Tensor) -> bool:
        self.index += 1
        whole = stage != self.stage or self.index == self.num_calls - 1
        if not whole:
            self.sum += float(self.rescale(relative_change(seen, self.before)))
            whole = self.sum >= self.threshold
        if whole:
            self.sum = 0.0
        self.stage, self.before = stage, seen
        return not whole


@MODELS.register_module()
class TeaCache(DecidingMethod):
    """All layers, while their input has changed little in sum (TeaCache, Liu et al. 2024).

    The relative L1 change of the first layer's modulated input, from call to call, goes through a
    polynomial and is summed since the last whole call; below ``threshold`` what all layers added is
    reused. The first and the last call are whole.

    Args:
        coefficients: of the polynomial, highest power first. The authors publish fits for their
            models and none for DiT; the identity is the default.
    """

    def __init__(self, threshold: float, coefficients: Sequence[float] = (1.0, 0.0)) -> None:
        super().__init__()
        self.threshold = checked_threshold(threshold)
        self.coefficients = tuple(coefficients)

    def parts(self, network: SparseTransformer) -> TeaCacheParts:
        return TeaCacheParts(network)

    def judge(self, num_calls: int) -> TeaCacheJudge:
        return TeaCacheJudge(self.threshold, self.coefficients, num_calls)

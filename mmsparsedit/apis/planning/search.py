"""The structure and grids of least distance within a cost: dynamic programming over layers.

Distances of segments are taken to add up, which is how candidates are ranked, not a result: the
best are built and measured as a whole (``plan.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from .sensitivity import Sensitivity
from .structure import Grid, Structure


@dataclass(frozen=True)
class Candidate:
    """A structure with grids of its stages, from clean to noisy.

    Attributes:
        predicted: sum of the distances of its segments, mean over the stages.
        macs: of a call, mean over the stages.
    """

    structure: Structure
    grids: tuple[Grid, ...]
    predicted: float
    macs: float


@dataclass(frozen=True)
class _Path:
    """The layers up to some index: cost added to the dense model's, distance, and choices."""

    macs: float
    distance: float
    pooled: int
    modules: tuple[tuple[int, int], ...] = ()


def search(found: Sensitivity, weights: Sequence[float], budget: float) -> list[Candidate]:
    """The best structure for each choice of grids, least predicted distance first.

    Grids never grow from clean to noisy stages (SparseDiT, Eq. 5).

    Args:
        weights: of the stages, summing to one: the share of a sampler's calls in each.
        budget: MACs of a call, mean over the stages.

    Raises:
        ValueError: no structure is within the budget; the cheapest is named.
    """
    candidates = []
    cheapest = float('inf')
    for grids in combinations_with_replacement(found.grids, len(weights)):
        paths = _paths(found, grids, weights)
        cheapest = min(cheapest, found.dense_macs + min(path.macs for path in paths))
        within = [path for path in paths if found.dense_macs + path.macs <= budget]
        if within:
            best = min(within, key=lambda path: (path.distance, path.macs))
            structure = Structure(found.layout, best.pooled, best.modules)
            macs = found.dense_macs + best.macs
            candidates.append(Candidate(structure, grids, best.distance, macs))
    if not candidates:
        raise ValueError(
            f"the budget of {budget / found.dense_macs:.3f} of the dense model's MACs is out of "
            f'reach: the cheapest structure that was tried has {cheapest / found.dense_macs:.3f}. '
            'Allow more pooled or more sparse layers.'
        )
    return sorted(candidates, key=lambda candidate: (candidate.predicted, candidate.macs))


def _paths(found: Sensitivity, grids: Sequence[Grid], weights: Sequence[float]) -> list[_Path]:
    """Ways through the layers with one module at least; what follows the last is the top."""
    layout = found.layout

    def mean(values: Sequence[float]) -> float:
        return sum(w * v for w, v in zip(weights, values, strict=True))

    modules = {
        (start, sparse): (
            layout.length(sparse),
            mean([found.module_macs[sparse][grid] for grid in grids]),
            mean([by_grid[grid][k] for k, grid in enumerate(grids)]),
        )
        for (start, sparse), by_grid in found.modules.items()
    }
    at: list[list[_Path]] = [[] for _ in range(layout.depth + 1)]
    for count, distances in found.pooled.items():
        at[count].append(_Path(found.pooled_macs[count], mean(distances), count))
    finished = []
    for i in range(layout.depth + 1):
        at[i] = _undominated(at[i])
        for path in at[i]:
            for (start, sparse), (length, macs, distance) in modules.items():
                if start == i:
                    longer = _Path(
                        path.macs + macs,
                        path.distance + distance,
                        path.pooled,
                        (*path.modules, (start, sparse)),
                    )
                    at[i + length].append(longer)
            if path.modules:
                finished.append(path)
                if i < layout.depth and not layout.video:  # a dense layer of the last module
                    at[i + 1].append(path)
    return _undominated(finished)


def _undominated(paths: list[_Path]) -> list[_Path]:
    """Without those that cost as much as another and are as far; a path without module stays.

    Only a path with a module may be followed by dense layers.
    """
    kept: list[_Path] = []
    for begun in (False, True):
        least = float('inf')
        for path in sorted(
            (path for path in paths if bool(path.modules) == begun),
            key=lambda path: (path.macs, path.distance),
        ):
            if path.distance < least:
                kept.append(path)
                least = path.distance
    return kept

"""Schedule and grids for a budget: the share of the dense model's MACs that samples cost."""

import math
from dataclasses import dataclass

import torch
from mmengine.registry import init_default_scope

from mmsparsedit.models.cost import macs_by_grid, network_macs, trajectory_macs
from mmsparsedit.prune import ElasticPruneScheduler
from mmsparsedit.registry import MODELS, TASK_UTILS

from .schedule_plot import dense_model

Grids = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Budget:
    """What a budget was turned into.

    Attributes:
        asked, share: of the dense model's MACs for one sample of the same sampler and guidance,
            which is the mean over the sampled timesteps; asked, and obtained exactly.
        grids: of the stages, from clean to noisy.
        prune: config of their schedule.
    """

    asked: float
    share: float
    grids: Grids
    prune: dict

    def __str__(self) -> str:
        sizes = ', '.join('x'.join(map(str, grid)) for grid in self.grids)
        return (
            f"budget {self.asked:.4g}: {self.share:.4f} of the dense model's MACs, "
            f'{1 / self.share:.3g} times fewer (the clock gains less), grids {sizes} from clean to '
            'noisy'
        )


class Budgets:
    """The schedules of an elastic generator; what a call at each grid costs is counted once.

    Sampler, guidance and ``cfg_prune`` are those of the config. Costs are exact; nothing is
    allocated.

    Args:
        model_config: of a generator with an ``ElasticPruneScheduler``.

    Raises:
        ValueError: it has another schedule.
    """

    def __init__(self, model_config: dict) -> None:
        init_default_scope('mmsparsedit')
        with torch.device('meta'):
            self._generator = MODELS.build(model_config)
        self._elastic = elastic = self._generator.prune
        if not isinstance(elastic, ElasticPruneScheduler):
            held = 'no schedule' if elastic is None else type(elastic).__name__
            raise ValueError(
                f'a budget needs a checkpoint that was trained for many: the config has {held}, '
                'and prune must be an ElasticPruneScheduler (configs/sparsedit/digits_elastic.py).'
            )
        self._dense = dense_cost(model_config, self._generator.network.depth)
        self._counted = macs_by_grid(self._generator)

    def _share(self, grids: Grids) -> float:
        self._generator.prune = TASK_UTILS.build(self._elastic.fixed(grids))
        return trajectory_macs(self._generator, self._counted) / self._dense

    def choose(self, budget: float) -> Budget:
        """The schedule that comes nearest to a budget from below.

        Of the schedules that training drew, the dearest that fits; what is left buys larger grids,
        the clean stages first.

        Args:
            budget: share of the dense model's MACs.

        Raises:
            ValueError: no schedule of the range reaches it, with the range.
        """
        ladder = self._elastic.ladder
        low, high = self._share(ladder[0]), self._share(ladder[-1])
        if not low <= budget <= high:
            raise ValueError(
                f"budget {budget:.4g} of the dense model's MACs is out of reach: this model was "
                f'trained for {math.ceil(1e4 * low) / 1e4:.4f} to '
                f'{math.floor(1e4 * high) / 1e4:.4f} '
                f'({1 / high:.2f} to {1 / low:.2f} times fewer).'
            )
        grids = _dearest(self._elastic, budget, self._share)
        return Budget(budget, self._share(grids), grids, self._elastic.fixed(grids))


def dense_cost(model_config: dict, depth: int) -> int:
    """MACs of one sample of the dense counterpart, with the same sampler and guidance."""
    with torch.device('meta'):
        dense = MODELS.build({**dense_model(model_config, depth), 'acceleration': None})
    return trajectory_macs(dense, {None: network_macs(dense.network).total})


def _dearest(elastic: ElasticPruneScheduler, budget: float, share) -> Grids:
    low, high = 0, len(elastic.ladder)  # costs rise along the ladder
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if share(elastic.ladder[middle]) <= budget else (low, middle)
    grids = list(elastic.ladder[low])
    for i in range(len(grids)):
        sizes = list(dict.fromkeys(member[i] for member in elastic.ladder))
        for larger in sizes[sizes.index(grids[i]) + 1 :]:
            raised = (*grids[:i], larger, *grids[i + 1 :])
            if share(raised) > budget:
                break
            grids[i] = larger
    return tuple(grids)

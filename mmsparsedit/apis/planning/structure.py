"""What a planner chooses among: segments and module boundaries of a sparse model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmsparsedit.models.distillation import dense_network
from mmsparsedit.registry import MODELS

Grid = tuple[int, ...]
KEPT = (3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)  # shares of a side that grids are chosen from


@dataclass(frozen=True)
class Layout:
    """What the layers of a base model allow.

    Attributes:
        depth: layers of the dense model.
        video: layers come in pairs, in space and in time, and modules have no dense layer.
    """

    depth: int
    video: bool

    @property
    def step(self) -> int:
        """Layers that belong together."""
        return 2 if self.video else 1

    def length(self, sparse: int) -> int:
        """Layers of a module with so many on sparse tokens: generation and recovery added."""
        return sparse + 2 * self.step

    def pooled(self, most: int) -> list[int]:
        """Numbers of pooled layers; of a video one pair at least, which sees all frames."""
        return list(range(2 if self.video else 0, most + 1, self.step))

    def module(self, sparse: int, dense: int = 0) -> dict:
        """The config of a module."""
        if self.video:
            return dict(type='FactorisedSDTM', num_sparse=sparse)
        return dict(type='SDTM', block_counts=(1, sparse, 1, dense))


@dataclass(frozen=True)
class Structure:
    """Pooled layers, then modules, then layers of the top.

    Attributes:
        pooled: PoolingFormers at the bottom.
        modules: of each its first layer and its number of layers on sparse tokens; what lies
            between two are dense layers of the first.
    """

    layout: Layout
    pooled: int
    modules: tuple[tuple[int, int], ...]

    def options(self) -> dict:
        """The options of a network that it consists of."""
        ends = [start + self.layout.length(sparse) for start, sparse in self.modules]
        begins = [start for start, _ in self.modules[1:]]
        gaps = [begin - end for begin, end in zip(begins, ends[:-1], strict=True)]
        modules = [
            self.layout.module(sparse, dense)
            for (_, sparse), dense in zip(self.modules, [*gaps, 0], strict=True)
        ]
        alike = all(module == modules[0] for module in modules)
        return dict(
            num_bottom=self.pooled,
            num_sdtm=len(modules),
            num_top=self.layout.depth - ends[-1],
            sdtm=modules[0] if alike else modules,
        )

    def network(self, config: Mapping[str, Any]) -> dict:
        """A network's config with this structure, all else as it was."""
        return {**dense_network(config, self.layout.depth), **self.options()}

    def __str__(self) -> str:
        options = self.options()
        modules = options['sdtm'] if isinstance(options['sdtm'], list) else [options['sdtm']]
        key = 'num_sparse' if self.layout.video else 'block_counts'
        counts = ' '.join(str(module[key]).replace(' ', '') for module in modules)
        if len(modules) < options['num_sdtm']:
            counts = f'{options["num_sdtm"]} x {counts}'
        return f'{self.pooled} pooled, modules {counts}, {options["num_top"]} top'


def alone(config: Mapping[str, Any], layout: Layout, start: int, sparse: int) -> dict:
    """A network's config that is dense but for one module."""
    dense = MODELS.get(config['type']).block_type
    return {
        **dense_network(config, layout.depth),
        **dict(num_bottom=start, bottom_block=dict(type=dense), num_sdtm=1),
        **dict(num_top=layout.depth - start - layout.length(sparse), sdtm=layout.module(sparse)),
    }


def pooled_alone(config: Mapping[str, Any], layout: Layout, count: int) -> dict:
    """A network's config that is dense but for pooled layers at the bottom."""
    return dict(dense_network(config, layout.depth), num_bottom=count, num_top=layout.depth - count)


def grids_of(token_grid: Sequence[int], frames: int | None = None) -> list[Grid]:
    """Grids to choose from, most tokens first; of a video half the frames unless given."""
    leading: Grid = ()
    if len(token_grid) == 3:
        leading = (frames or math.ceil(token_grid[0] / 2),)
    sides = token_grid[-2:]
    grids = [(*leading, *(max(1, round(side * share)) for side in sides)) for share in KEPT]
    return list(dict.fromkeys(grids))

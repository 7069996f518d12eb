"""What making a segment sparse does to a dense model's output, and what it saves.

Each candidate is a network that is dense elsewhere, with its merges fitted in closed form: with
W1 = 0 a module would only show what leaving its layers out does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmsparsedit.models import fit_start, load_pretrained
from mmsparsedit.models.cost import network_macs
from mmsparsedit.registry import MODELS

from .structure import Grid, Layout, alone, pooled_alone

Batch = Mapping[str, Any]


@dataclass
class Sensitivity:
    """Distances and costs of segments, each by itself.

    Attributes:
        grids: that were tried, most tokens first.
        pooled: by number of pooled layers, the distance in each stage.
        modules: by (first layer, sparse layers) and grid, the distance in each stage.
        pooled_macs, module_macs: what they add to a call of the dense model, below zero; by number
            of pooled layers, by sparse layers and grid.
        dense_macs: of a call of the dense model.
    """

    layout: Layout
    grids: list[Grid]
    dense_macs: int
    pooled: dict[int, list[float]] = field(default_factory=dict)
    modules: dict[tuple[int, int], dict[Grid, list[float]]] = field(default_factory=dict)
    pooled_macs: dict[int, int] = field(default_factory=dict)
    module_macs: dict[int, dict[Grid, int]] = field(default_factory=dict)

    def figures(self) -> dict:
        """As JSON holds it."""
        return dict(
            grids=self.grids,
            pooled=[dict(layers=n, distance=d) for n, d in self.pooled.items()],
            modules=[
                dict(start=start, sparse=sparse, grid=grid, distance=distance)
                for (start, sparse), by_grid in self.modules.items()
                for grid, distance in by_grid.items()
            ],
        )


class Probe:
    """Batches of noisy data, and what the dense model makes of them.

    Args:
        teacher: the dense model.
        fitting: inputs of networks by name, of all stages and grids, ``grid`` included.
        judging: one batch for each stage; its grid is replaced.
        channel_dim: axis of channels in the output.

    Raises:
        ValueError: a model whose output is zero.
    """

    def __init__(
        self,
        teacher: nn.Module,
        fitting: Sequence[Batch],
        judging: Sequence[Batch],
        channel_dim: int,
    ) -> None:
        self.teacher, self.fitting, self.channel_dim = teacher, fitting, channel_dim
        self.judging = [{k: v for k, v in batch.items() if k != 'grid'} for batch in judging]
        with torch.no_grad():
            self.outputs = [self._predicted(teacher(**batch)) for batch in self.judging]
        if not all(output.any() for output in self.outputs):
            raise ValueError(
                "the dense model's output is zero, as that of an untrained one: name a trained "
                'checkpoint, nothing can be measured otherwise.'
            )

    @torch.no_grad()
    def fitted(self, config: Mapping[str, Any]) -> nn.Module:
        """A network of a config with the dense model's weights, what it has of its own fitted."""
        network = MODELS.build(config).to(self.outputs[0].device)
        load_pretrained(network, self.teacher.state_dict())
        batches = self.fitting
        if not network.middle:
            batches = [{k: v for k, v in batch.items() if k != 'grid'} for batch in batches]
        fit_start(network.eval(), self.teacher, batches)
        return network

    @torch.no_grad()
    def distance(self, network: nn.Module, stage: int, grid: Grid | None) -> float:
        """Squared distance of the output to the dense model's, relative to its square."""
        given = {} if grid is None else dict(grid=grid)
        found = self._predicted(network(**self.judging[stage], **given))
        wanted = self.outputs[stage]
        return ((found - wanted).square().sum() / wanted.square().sum()).item()

    def _predicted(self, output: Tensor) -> Tensor:
        return output.narrow(self.channel_dim, 0, self.teacher.in_channels).float()


def measure(
    config: Mapping[str, Any],
    layout: Layout,
    probe: Probe,
    grids: Sequence[Grid],
    most_pooled: int,
    most_sparse: int,
    progress=lambda text: None,
) -> Sensitivity:
    """Every number of pooled layers and every module, at every grid and stage.

    Cost: for each candidate, the fit, and one forward pass for each grid and stage.

    Args:
        config: of the network, dense or sparse.
        most_pooled, most_sparse: layers at the bottom, and of a module on sparse tokens.
        progress: told about each candidate.
    """
    stages = range(len(probe.judging))
    dense_macs = network_macs(probe.teacher).total
    found = Sensitivity(layout, list(grids), dense_macs)
    for count in layout.pooled(most_pooled):
        found.pooled[count], found.pooled_macs[count] = [0.0] * len(stages), 0
        if count:
            network = probe.fitted(pooled_alone(config, layout, count))
            found.pooled[count] = [probe.distance(network, k, None) for k in stages]
            found.pooled_macs[count] = network_macs(network).total - dense_macs
            progress(f'{count} pooled')
    first = layout.pooled(most_pooled)[0]
    for sparse in range(0 if layout.video else 1, most_sparse + 1, layout.step):
        for start in range(first, layout.depth - layout.length(sparse) + 1, layout.step):
            network = probe.fitted(alone(config, layout, start, sparse))
            found.modules[start, sparse] = {
                grid: [probe.distance(network, k, grid) for k in stages] for grid in grids
            }
            if sparse not in found.module_macs:  # the same wherever it stands
                found.module_macs[sparse] = {
                    grid: network_macs(network, grid).total - dense_macs for grid in grids
                }
            progress(f'module at layer {start}, {sparse} sparse')
    return found

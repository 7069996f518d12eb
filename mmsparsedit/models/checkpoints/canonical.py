"""The form between two layouts of weights: layers by depth, whatever segment they belong to.

Every layer is ``layers.{i}`` in depth order; inside it the names of this package (``attn.qkv``,
``attn.v``, ``merge_sparse`` = W1, ``merge_dense`` = W2). Everything outside layers has the names of
the network. A dense and a sparse model of one depth then differ only in what a layer carries.
"""

import re
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Canonical:
    """Weights in canonical form, and where each came from."""

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, list[str]] = field(default_factory=dict)  # canonical key -> source keys
    copies: list[str] = field(default_factory=list)  # source keys that repeat another
    absent: dict[str, str] = field(default_factory=dict)  # keys the layout cannot hold: why

    def add(self, key: str, value: Tensor, *sources: str) -> None:
        if key in self.state:
            raise ValueError(
                f'checkpoint keys {self.origin[key]} and {list(sources)} both stand for {key}.'
            )
        self.state[key] = value
        self.origin[key] = list(sources)

    @property
    def depth(self) -> int:
        """Number of layers that carry a weight."""
        return len({key.split('.')[1] for key in self.state if key.startswith('layers.')})


def in_layer(key: str, layers: str = 'layers') -> tuple[int | None, str, str]:
    """A key as (index of its layer, module inside it, name of the weight); None outside layers."""
    match = re.fullmatch(rf'{layers}\.(\d+)\.(.+)', key)
    module, _, weight = (match[2] if match else key).rpartition('.')
    return (int(match[1]) if match else None), module, weight


def key_of(layer: int | None, module: str, weight: str, layers: str = 'layers') -> str:
    """The inverse of ``in_layer``."""
    parts = [] if layer is None else [layers, str(layer)]
    return '.'.join([*parts, *filter(None, (module, weight))])

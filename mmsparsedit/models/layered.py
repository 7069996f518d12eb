"""The form between two layouts of weights: layers by depth, whatever segment they belong to."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Layered:
    """Weights in layered form, and where each came from."""

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, list[str]] = field(default_factory=dict)  # layered key -> source keys
    copies: list[str] = field(default_factory=list)  # source keys that repeat another
    absent: dict[str, str] = field(default_factory=dict)  # keys the layout cannot hold: why

    def add(self, key: str, value: Tensor, *sources: str) -> None:
        if key in self.state:
            raise ValueError(
                f'checkpoint keys {self.origin[key]} and {list(sources)} both stand for {key}.'
            )
        self.state[key] = value
        self.origin[key] = list(sources)

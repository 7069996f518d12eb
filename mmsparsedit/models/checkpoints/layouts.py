"""What a checkpoint layout is, and the ways of naming weights that base models share.

Each network class names its layouts (``SparseTransformer.layouts``); this package's own, ``OWN``,
belongs to all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .canonical import Canonical, in_layer, key_of


@dataclass(frozen=True)
class Layout:
    """A way of naming the weights of one base model.

    Args:
        name: what ``load_pretrained(..., source=name)`` and ``convert_checkpoint.py`` call it.
        shown: keys to know it by, for messages.
        matches: whether key names are of this layout.
        read: state dict -> canonical form; ValueError for a state that cannot be read.
        write: canonical weights of a dense network -> state dict; None: it is only read.
        note: what whoever reads or writes it has to know; it ends up in the load report.
    """

    name: str
    shown: str
    matches: Callable[[set[str]], bool]
    read: Callable[[dict[str, Tensor]], Canonical]
    write: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    note: str = ''


def heads(keys: Iterable[str]) -> set[str]:
    """First parts of keys."""
    return {key.split('.')[0] for key in keys}


# -- blocks.{i}: DiT and its descendants -----------------------------------------------------------


def read_blocks(state: dict[str, Tensor]) -> Canonical:
    """Layers are ``blocks.{i}``; all other names are those of the network."""
    canonical = Canonical()
    for key, value in state.items():
        canonical.add(key_of(*in_layer(key, 'blocks')), value, key)
    return canonical


def write_blocks(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key_of(*in_layer(key), 'blocks'): value for key, value in weights.items()}


# -- segments: this package, and the authors of SparseDiT ------------------------------------------


def read_segments(
    state: dict[str, Tensor], bottom: str, middle: str, groups: tuple[str, ...], top: str
) -> Canonical:
    """Layers are ``{bottom}.{i}``, ``{middle}.{m}.{group}.{i}``, ``{top}.{i}``, in this order."""

    def place(key: str) -> tuple[tuple, str] | None:
        """Where the layer of a key stands in the depth order, and the key inside it."""
        parts = key.split('.')
        if not parts[1:2] or not parts[1].isdigit():
            return None
        if parts[0] in (bottom, top):
            return (0 if parts[0] == bottom else 2, int(parts[1]), 0, 0), '.'.join(parts[2:])
        if parts[0] == middle and len(parts) > 3 and parts[2] in groups:
            at = (1, int(parts[1]), groups.index(parts[2]), int(parts[3]))
            return at, '.'.join(parts[4:])
        return None

    order = sorted({found[0] for found in map(place, state) if found})
    index = {at: i for i, at in enumerate(order)}
    canonical = Canonical()
    for key, value in state.items():
        found = place(key)
        canonical.add(f'layers.{index[found[0]]}.{found[1]}' if found else key, value, key)
    return canonical


def _read_own(state: dict[str, Tensor]) -> Canonical:
    """This package's; a recovery's block may stand inside it or, before 0.2, be the layer."""
    named = read_segments(
        state, 'bottom', 'middle', ('generation', 'sparse', 'recovery', 'dense'), 'top'
    )
    canonical = Canonical()
    for key, value in named.state.items():
        layer, module, weight = in_layer(key)
        inner = key_of(None, module, weight)
        if layer is not None:
            inner = inner.removeprefix('block.')  # of a table of the block too
        canonical.add(key_of(layer, '', inner), value, *named.origin[key])
    return canonical


OWN = Layout(
    'mmsparsedit',
    'bottom.0..., middle.0..., top.0...',
    lambda keys: bool(heads(keys) & {'bottom', 'middle', 'top'}),
    _read_own,
)


# -- other names inside layers: diffusers ----------------------------------------------------------


@dataclass(frozen=True)
class KeyTable:
    """A layout whose modules have names of their own, as tables from its names to ours.

    Args:
        layers: what stands before the index of a layer.
        outer, inner: modules outside layers, and inside a layer.
        tensors: whole keys of weights outside layers.
        stacked: modules of ours whose rows are several of theirs, one behind the other.
        repeated: modules of which every layer carries a copy, to the one of ours outside layers.
        absent: keys of ours without a place there, and what to say where they are missed.
        recomputed: keys of ours that need not be written.
    """

    layers: str
    outer: Mapping[str, str]
    inner: Mapping[str, str]
    stacked: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    recomputed: tuple[str, ...] = ('pos_embed',)

    def read(self, state: dict[str, Tensor]) -> Canonical:
        canonical = Canonical(absent=dict(self.absent))
        first = {parts[0]: (ours, parts) for ours, parts in self.stacked.items()}
        later = {part for parts in self.stacked.values() for part in parts[1:]}
        for key, value in state.items():
            layer, module, weight = in_layer(key, self.layers)
            if layer is None:
                named = key_of(None, self.outer.get(module, module), weight)
                canonical.add(self.tensors.get(key, named), value, key)
            elif module in self.repeated:
                original = key_of(0, module, weight, self.layers)
                if layer == 0:
                    canonical.add(key_of(None, self.repeated[module], weight), value, key)
                elif original not in state or not torch.equal(value, state[original]):
                    raise ValueError(
                        f'checkpoint key {key} differs from {original}: the network has one '
                        'embedder for all layers, so a model whose layers were trained apart '
                        'cannot be represented.'
                    )
                else:
                    canonical.copies.append(key)
            elif module in first:
                ours, parts = first[module]
                sources = [key_of(layer, part, weight, self.layers) for part in parts]
                missing = [source for source in sources if source not in state]
                if missing:
                    raise ValueError(f'checkpoint keys {missing} are missing beside {key}.')
                rows = torch.cat([state[source] for source in sources])
                canonical.add(key_of(layer, ours, weight), rows, *sources)
            elif module not in later:
                canonical.add(key_of(layer, self.inner.get(module, module), weight), value, key)
        return canonical

    def write(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors, outer, inner, repeated = (
            {ours: theirs for theirs, ours in table.items()}
            for table in (self.tensors, self.outer, self.inner, self.repeated)
        )
        depth = Canonical(dict(weights)).depth
        state = {}
        for key, value in weights.items():
            layer, module, weight = in_layer(key)
            if key in self.absent or key in self.recomputed:
                continue
            if key in tensors:
                state[tensors[key]] = value
            elif layer is None and module in outer:
                state[key_of(None, outer[module], weight)] = value
            elif layer is None and module in repeated:
                for i in range(depth):
                    state[key_of(i, repeated[module], weight, self.layers)] = value.clone()
            elif layer is not None and module in self.stacked:
                parts = self.stacked[module]
                for part, rows in zip(parts, value.chunk(len(parts)), strict=True):
                    state[key_of(layer, part, weight, self.layers)] = rows.clone()
            elif layer is not None and (module in inner or not module):
                state[key_of(layer, inner.get(module, ''), weight, self.layers)] = value
            else:
                raise ValueError(f'{key} has no place in this layout.')
        return state

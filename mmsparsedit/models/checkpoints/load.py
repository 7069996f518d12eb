"""Loading other people's checkpoints into a network, with an account of every weight."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmsparsedit.nn.lora import DOWN, UP
from mmsparsedit.registry import MODELS

from .canonical import Canonical
from .io import read_checkpoint
from .layouts import OWN, Layout

FIXED_TABLES = ('pos_embed', 'temp_embed')  # sine-cosine, of any length


@dataclass
class LoadReport:
    """What became of every weight.

    Each key of the network is in ``loaded`` or in ``initialised``; each key of the checkpoint is
    in ``sources`` (what a loaded key was made of) or in ``dropped``. Of a qkv whose layer keeps
    only V, the checkpoint's key stands in ``sources`` and its lost part, marked ``[q,k]``, in
    ``dropped``.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)  # loaded key -> checkpoint keys
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        lines = [
            f'{self.source} checkpoint: {len(self.loaded)} weights loaded, '
            f'{len(self.dropped)} dropped, {len(self.initialised)} initialised'
        ]
        return '\n'.join([*lines, *self.notes])

    def check_complete(self, name: str | os.PathLike) -> None:
        """Refuse a dense checkpoint in a sparse network: to start from, not to sample.

        Raises:
            ValueError: with what to do; ``name`` is the checkpoint's.
        """
        merges = [key for key in self.initialised if '.merge_' in key]
        if merges or any(key.endswith('[q,k]') for key in self.dropped):
            raise ValueError(
                f'{name} is a dense checkpoint, the config a sparse network: without fine-tuning '
                'its samples mean nothing. Train with load_from set to it, or use it with the '
                'config of the dense model.'
            )


def extract_state_dict(checkpoint: Mapping) -> dict[str, Tensor]:
    """The weights in a checkpoint's wrapping, EMA where there is one.

    Recognised: a bare state dict; ``{model, ema, opt, args}`` of DiT's and Latte's training;
    ``{state_dict, state_dict_ema}``; a checkpoint of MMEngine's Runner, whose ``state_dict`` holds
    the EMA weights, with the network's keys behind ``network.``.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'the checkpoint holds a {type(checkpoint).__name__}, expected a dict of weights.'
        )
    state = checkpoint
    for key in ('ema', 'state_dict_ema', 'state_dict', 'model'):
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    wrong = [key for key, v in state.items() if not (isinstance(v, Tensor) and type(key) is str)]
    if wrong or not state:
        raise ValueError(
            f'the checkpoint holds no plain state dict: expected tensors, got {wrong[:5]} among '
            f'keys {list(state)[:5]}. Save the state dict of the model alone.'
        )
    for prefix in ('module.', 'network.'):
        if all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return dict(state)


def load_pretrained(
    net: nn.Module,
    source_checkpoint: str | os.PathLike | Mapping,
    source: str = 'auto',
    reinitialise: Sequence[str] = (),
) -> LoadReport:
    """Load a checkpoint into ``net``, layer i of the one into layer i of the other.

    A dense checkpoint fits a sparse network of its depth: PoolingFormers keep V and drop queries
    and keys, merges start at W1 = 0, W2 = I (paper, Sec. 3.3). Nothing is written to ``net``
    before everything was checked.

    Args:
        net: a ``SparseTransformer``; its class names the layouts that it reads.
        source_checkpoint: path, URL or folder (``read_checkpoint``), or its contents.
        source: name of a layout, e.g. ``'dit'``, ``'latte'``, ``'pixart'``, ``'sparsedit'`` (the
            authors'), ``'diffusers'``, ``'mmsparsedit'``; ``'auto'`` recognises it.
        reinitialise: prefixes of the network's keys that keep their initial values where the
            checkpoint's do not fit, e.g. ``('y_embedder',)`` for another set of labels.

    Raises:
        ValueError: a layout that the network does not have; a missing, unknown or misshapen key,
            named; weights that are not finite; a checkpoint of another depth.
    """
    if source != 'auto':
        layout_named(net, source)  # before any reading
    checkpoint = source_checkpoint
    name = 'checkpoint'
    if not isinstance(checkpoint, Mapping):
        name = f'checkpoint {os.fspath(source_checkpoint)}'
        checkpoint = read_checkpoint(source_checkpoint)
    state = extract_state_dict(checkpoint)
    adapters = any(key.rpartition('.')[2] in (DOWN, UP) for key in net.state_dict())
    layout = recognise(net, state) if source == 'auto' else layout_named(net, source)
    if not layout.matches(set(state)):
        raise ValueError(
            f'{name} is not of the layout {layout.name!r} ({layout.shown}): got keys such as '
            f'{list(state)[:4]}. Use source="auto", or name the one it has.'
        )
    try:
        canonical = layout.read(state)
        merged = 0 if adapters else merge_adapters(canonical)
        plan, report = _plan(net, canonical, layout.name, tuple(reinitialise))
    except ValueError as error:
        raise ValueError(f'{name} ({layout.name}): {error}') from error
    report.notes += [layout.note] if layout.note else []
    report.notes += [f'{merged} low-rank adapters merged into their weights'] if merged else []
    with torch.no_grad():
        target = net.state_dict()
        for key, value in plan.items():
            target[key].copy_(value)
        for layer_name, layer in net.named_layers():
            if f'{layer_name}.merge_sparse.weight' in report.initialised:
                layer.init_merge()
    return report


def merge_adapters(canonical: Canonical) -> int:
    """Add the product of each pair of low-rank adapters to its weight; returns how many."""
    names = [key.removesuffix(DOWN) for key in canonical.state if key.endswith(f'.{DOWN}')]
    for name in names:
        missing = [name + part for part in (UP, 'weight') if name + part not in canonical.state]
        if missing:
            raise ValueError(f'{name}{DOWN} is an adapter without {" and ".join(missing)}.')
        down, up = (canonical.state.pop(name + part) for part in (DOWN, UP))
        weight = canonical.state[f'{name}weight']
        canonical.state[f'{name}weight'] = weight + (up.float() @ down.float()).to(weight)
        for part in (DOWN, UP):
            canonical.origin[f'{name}weight'] += canonical.origin.pop(name + part)
    return len(names)


def layouts_of(net: nn.Module | type) -> dict[str, Layout]:
    """The layouts of a network or its class by name, this package's own last."""
    return {layout.name: layout for layout in (*net.layouts, OWN)}


def layout_named(net: nn.Module, name: str) -> Layout:
    layouts = layouts_of(net)
    if name not in layouts:
        raise ValueError(
            f'{name!r} is no layout of {type(net).__name__}, which has {", ".join(layouts)}. Name '
            "one of these, or 'auto', or use a config of the network that the checkpoint is of."
        )
    return layouts[name]


def recognise(net: nn.Module, keys: Iterable[str]) -> Layout:
    """The layout of the network whose key names these are, or ValueError."""
    keys = set(keys)
    layouts = layouts_of(net)
    for layout in layouts.values():
        if layout.matches(keys):
            return layout
    known = '; '.join(f'{layout.name}: {layout.shown}' for layout in layouts.values())
    raise ValueError(
        f'the checkpoint has none of the known layouts of {type(net).__name__} ({known}): got keys '
        f'such as {sorted(keys)[:4]}. {_other_network(net, keys)}'
    )


def _other_network(net: nn.Module, keys: set[str]) -> str:
    """Which network's checkpoint it is, if it is one's that is known."""
    for network in MODELS.module_dict.values():
        for layout in getattr(network, 'layouts', ()):
            if not isinstance(net, network) and layout.matches(keys):
                return (
                    f'They are of {network.__name__} ({layout.name}): use a config of that network.'
                )
    return 'Name the source, or convert it.'


def _plan(
    net: nn.Module, canonical: Canonical, source: str, reinitialise: tuple[str, ...]
) -> tuple[dict[str, Tensor], LoadReport]:
    """What to copy where, all of it checked."""
    report = LoadReport(source, dropped=list(canonical.copies))
    layers = [name for name, _ in net.named_layers()]
    if canonical.depth != len(layers):
        raise ValueError(
            f'{canonical.depth} layers, the network has {len(layers)}. Set num_bottom, num_sdtm, '
            'block_counts and num_top so that they add up to the depth of the checkpoint.'
        )
    canonical_name = {}
    for i, layer in enumerate(layers):
        for key in net.get_submodule(layer).state_dict():
            canonical_name[f'{layer}.{key}'] = f'layers.{i}.{key.removeprefix("block.")}'
    merges_known = any('.merge_sparse.' in key for key in canonical.state)
    plan: dict[str, Tensor] = {}
    used: set[str] = set()
    problems: list[str] = []

    for key, wanted in net.state_dict().items():
        key_in = canonical_name.get(key, key)
        value, origin = canonical.state.get(key_in), canonical.origin.get(key_in, [])
        fused = key_in.replace('.attn.v.', '.attn.qkv.')
        if value is None and fused != key_in and fused in canonical.state:
            C = wanted.shape[0]
            value, origin = canonical.state[fused][2 * C :], canonical.origin[fused]
            report.dropped += [f'{source_key}[q,k]' for source_key in origin]
            used.add(fused)
        used.add(key_in)
        if key in FIXED_TABLES and (value is None or value.shape != wanted.shape):
            report.initialised.append(key)
            report.dropped += origin
            had = 'none' if value is None else f'{value.shape[-2]} positions'
            report.notes.append(
                f'{key}: recomputed for {wanted.shape[-2]} positions (checkpoint: {had})'
            )
        elif value is not None and value.shape == wanted.shape:
            if not value.isfinite().all():
                problems.append(f'{" + ".join(origin)} holds NaN or infinity')
            plan[key] = value
            report.loaded.append(key)
            report.sources[key] = list(origin)
            if key in FIXED_TABLES and not torch.allclose(value.to(wanted), wanted, atol=1e-4):
                report.notes.append(
                    f'{key}: taken from the checkpoint, which differs from the computed table; '
                    'set the interpolation of positions (pe_interpolation) to the one of training'
                )
        elif key.startswith(reinitialise) and reinitialise:
            report.initialised.append(key)
            report.dropped += origin
            report.notes.append(f'{key}: kept as initialised, as asked')
        elif value is not None:
            problems.append(
                f'{" + ".join(origin)} has shape {tuple(value.shape)}, {key} needs '
                f'{tuple(wanted.shape)}'
            )
        elif key in canonical.absent:
            report.initialised.append(key)
            report.notes.append(canonical.absent[key])
        elif '.merge_' in key and not merges_known:
            report.initialised.append(key)
        elif key.rpartition('.')[2] in (DOWN, UP):
            report.initialised.append(key)
        else:
            problems.append(f'{key} of the network is missing in the checkpoint')

    for key in canonical.state:
        if key not in used:
            problems.append(f'{" + ".join(canonical.origin[key])} is unknown to the network')
    if problems:
        shown = '; '.join(problems[:6]) + ('; ...' if len(problems) > 6 else '')
        raise ValueError(
            f'{len(problems)} weights do not fit: {shown}. Use the config that the checkpoint was '
            'made with, or name prefixes to keep as initialised in `reinitialise`.'
        )
    return plan, report


def export_weights(net: nn.Module, layout: str = 'mmsparsedit') -> dict[str, Tensor]:
    """The weights of a network in one of its layouts.

    Raises:
        ValueError: a layout that the network does not have or that is only read; a sparse network
            for a layout of dense ones.
    """
    target = layout_named(net, layout)
    if target is OWN:
        return net.state_dict()
    if target.write is None:
        written = [each.name for each in layouts_of(net).values() if each.write or each is OWN]
        raise ValueError(
            f'the layout {layout!r} is only read; {type(net).__name__} is written as '
            f'{", ".join(written)}.'
        )
    weights = OWN.read(net.state_dict()).state
    sparse = [key for key in weights if '.attn.v.' in key or '.merge_' in key]
    if sparse:
        raise ValueError(
            f'only a dense network can be exported to {layout!r}, a layout of dense models; this '
            f'one has {sparse[0]}, which they cannot hold. Build it with num_bottom=0, num_sdtm=0.'
        )
    return target.write(weights)

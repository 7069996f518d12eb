"""Loading other people's checkpoints into a network, with an account of every weight."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .checkpoint_io import read_checkpoint
from .weight_layouts import READERS, Layered, recognise

SOURCES = ('auto', *READERS)
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
    wrong = [key for key, value in state.items() if not isinstance(value, Tensor)]
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
        net: a network with ``named_layers``.
        source_checkpoint: path, URL or folder (``read_checkpoint``), or its contents.
        source: ``'dit'``, ``'latte'``, ``'pixart'``, ``'sparsedit'`` (the authors' layout),
            ``'diffusers'``, ``'mmsparsedit'``, or ``'auto'`` to recognise it.
        reinitialise: prefixes of the network's keys that keep their initial values where the
            checkpoint's do not fit, e.g. ``('y_embedder',)`` for another set of labels.

    Raises:
        ValueError: a missing, unknown or misshapen key, named; a checkpoint of another depth.
    """
    if source not in SOURCES:
        raise ValueError(f'source must be one of {SOURCES}, got {source!r}.')
    checkpoint = source_checkpoint
    name = 'checkpoint'
    if not isinstance(checkpoint, Mapping):
        name = f'checkpoint {os.fspath(source_checkpoint)}'
        checkpoint = read_checkpoint(source_checkpoint)
    state = extract_state_dict(checkpoint)
    if source == 'auto':
        source = recognise(state)
    try:
        layered = READERS[source](state)
        plan, report = _plan(net, layered, source, tuple(reinitialise))
    except ValueError as error:
        raise ValueError(f'{name} ({source}): {error}') from error
    with torch.no_grad():
        target = net.state_dict()
        for key, value in plan.items():
            target[key].copy_(value)
        for layer_name, block in net.named_layers():
            if f'{layer_name}.merge_sparse.weight' in report.initialised:
                block.init_merge()
    return report


def _plan(
    net: nn.Module, layered: Layered, source: str, reinitialise: tuple[str, ...]
) -> tuple[dict[str, Tensor], LoadReport]:
    """What to copy where, all of it checked."""
    report = LoadReport(source, dropped=list(layered.copies))
    layers = [name for name, _ in net.named_layers()]
    _check_depth(layered, len(layers))
    layered_name = {}
    for i, layer in enumerate(layers):
        for key, _ in net.get_submodule(layer).state_dict().items():
            layered_name[f'{layer}.{key}'] = f'layers.{i}.{key}'
    merges_known = any('.merge_sparse.' in key for key in layered.state)
    plan: dict[str, Tensor] = {}
    used: set[str] = set()
    problems: list[str] = []

    for key, wanted in net.state_dict().items():
        key_in = layered_name.get(key, key)
        value, origin = layered.state.get(key_in), layered.origin.get(key_in, [])
        fused = key_in.replace('.attn.v.', '.attn.qkv.')
        if value is None and fused != key_in and fused in layered.state:
            C = wanted.shape[0]
            value, origin = layered.state[fused][2 * C :], layered.origin[fused]
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
        elif key in layered.absent:
            report.initialised.append(key)
            report.notes.append(layered.absent[key])
        elif '.merge_' in key and not merges_known:
            report.initialised.append(key)
        else:
            problems.append(f'{key} of the network is missing in the checkpoint')

    for key in layered.state:
        if key not in used:
            problems.append(f'{" + ".join(layered.origin[key])} is unknown to the network')
    if problems:
        shown = '; '.join(problems[:6]) + ('; ...' if len(problems) > 6 else '')
        raise ValueError(
            f'{len(problems)} weights do not fit: {shown}. Use the config that the checkpoint was '
            'made with, or name prefixes to keep as initialised in `reinitialise`.'
        )
    return plan, report


def _check_depth(layered: Layered, depth: int) -> None:
    found = {int(key.split('.')[1]) for key in layered.state if key.startswith('layers.')}
    if len(found) != depth:
        raise ValueError(
            f'{len(found)} layers, the network has {depth}. Set num_bottom, num_sdtm, '
            'block_counts and num_top so that they add up to the depth of the checkpoint.'
        )


def dense_layered_state(net: nn.Module) -> dict[str, Tensor]:
    """The weights of a dense network in layered form, for export; ValueError if it is sparse."""
    layered = READERS['mmsparsedit'](net.state_dict()).state
    sparse = [key for key in layered if '.attn.v.' in key or '.merge_' in key]
    if sparse:
        raise ValueError(
            'only a dense network can be exported to a layout of dense models; this one has '
            f'{sparse[0]}, which they cannot hold. Build it with num_bottom=0, num_sdtm=0.'
        )
    return layered

"""A start for a sparse model that a dense one gives in closed form, before any gradient.

B batch, N dense tokens, C width; of a video F frames and S positions, f and s the sparse ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from mmsparsedit.nn import PoolingAttention, SparseTransformer, TokenRecovery, pool_tokens
from mmsparsedit.nn.merge_fit import LinearFit, MergeFit
from mmsparsedit.nn.resample import Grid
from mmsparsedit.prune import Stage

from .generators import DiffusionGenerator, batch_randomness


@dataclass(frozen=True)
class Fitted:
    """Squared error of a linear map, relative to the square of what it should give.

    Attributes:
        name: of the layer in the network.
        start: before, behind what was fitted before it; of a merge with W1 = 0, W2 = I.
        fitted: with the fitted weights.
    """

    name: str
    start: float
    fitted: float


@torch.no_grad()
def fit_start(
    network: SparseTransformer,
    teacher: SparseTransformer,
    batches: Sequence[Mapping[str, Any]],
    ridge: float = 1e-3,
) -> list[Fitted]:
    """Fit to the dense model what the sparse one has of its own, from the first layer to the last.

    The projections of PoolingFormers, to the mean over tokens of what the dense layer's attention
    gives; W1 and W2 of every recovery (``fit_merges``); the last linear map, to the dense model's
    output. Each is one ridge regression for all batches, whatever their grids, whose inputs come
    from the sparse network with what was fitted before. All other weights are left alone.

    Args:
        network: sparse, with the dense model's weights.
        teacher: the dense model.
        batches: inputs of ``network.forward`` by name, ``grid`` included; on its device.
        ridge: see ``Ridge``.

    Returns:
        One entry for each map, in the order in which they are fitted.

    Raises:
        ValueError: no batch; a batch with single images.
    """
    _check_batches(batches)
    dense = dict(enumerate(layer for _, layer in teacher.named_layers()))
    report = []
    for i, (name, layer) in enumerate(network.named_layers()):
        if isinstance(getattr(layer, 'attn', None), PoolingAttention):
            read, meant = layer.attn.proj, dense[i].attn
            report.append(_fit_linear(name, read, meant, network, teacher, batches, ridge, True))
    if any(isinstance(layer, TokenRecovery) for _, layer in network.named_layers()):
        report += fit_merges(network, teacher, batches, ridge)
    read, meant = network.final_layer.linear, teacher.final_layer.linear
    report.append(_fit_linear('final_layer', read, meant, network, teacher, batches, ridge))
    return report


@torch.no_grad()
def fit_merges(
    network: SparseTransformer,
    teacher: SparseTransformer,
    batches: Sequence[Mapping[str, Any]],
    ridge: float = 1e-3,
) -> list[Fitted]:
    """Fit W1 and W2 of every recovery (SparseDiT, Eq. 3) to the dense model's tokens.

    Module by module as they run: what enters a merge is computed by the sparse network with the
    merges before it fitted, what it should give are the dense model's tokens where the weights of
    its layer read them, less the position table that is added to it. Arguments and result are those
    of ``fit_start``.

    Cost: forward passes of both models up to the recovery, for each recovery and batch.

    Raises:
        ValueError: no batch; a network without recoveries; a batch with single images.
    """
    _check_batches(batches)
    report = []
    for name, recovery, span, done in _in_running_order(network, batches[0]):
        fit = MergeFit(recovery, ridge)
        for batch in batches:
            call = _call_of(recovery, network, batch)
            tokens = _dense_tokens(teacher, batch, span.stop)
            target = tokens[span.start] + sum(tokens[i + 1] - tokens[i] for i in done)
            dense_grid = network.at_size(batch['x'].shape[-2:]).token_grid
            target = _as_read(target, call, batch['grid'], dense_grid)
            if call.pos_embed is not None:
                target = target - call.pos_embed
            fit.update(call.x, call.sparse, target, call.grid, call.dense_grid)
        report.append(Fitted(name, *fit.apply()))
    return report


def _check_batches(batches: Sequence[Mapping[str, Any]]) -> None:
    if not batches:
        raise ValueError('no batch to fit to: give at least one, a few hundred are usual.')
    if any(batch.get('use_image_num') for batch in batches):
        raise ValueError('a start is fitted to clips alone: leave single images out of batches.')


def _fit_linear(
    name: str,
    linear: nn.Linear,
    meant: nn.Module,
    network: SparseTransformer,
    teacher: SparseTransformer,
    batches: Sequence[Mapping[str, Any]],
    ridge: float,
    mean: bool = False,
) -> Fitted:
    """Fit a map of the network to what a module of the dense model gives, or its mean (B, 1, C)."""
    fit = LinearFit(linear, ridge)
    for batch in batches:
        target = _reached(meant, teacher, _without_grid(batch), output=True)
        if mean:
            target = target.mean(-2, keepdim=True)
        x = _reached(linear, network, batch)
        fit.update(x, target.reshape(*x.shape[:-1], -1))
    return Fitted(name, *fit.apply())


def calibration_batches(
    generator: DiffusionGenerator, data: Iterable[Mapping[str, Any]], seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Network inputs for ``fit_start`` from collated batches of training data.

    Every grid of the schedule is met equally often.
    """
    return noisy_batches(generator, data, generator.prune.stages, seed)


def noisy_batches(
    generator: DiffusionGenerator,
    data: Iterable[Mapping[str, Any]],
    stages: Sequence[Stage],
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Network inputs, ``grid`` included, from collated batches of training data; stages in turn.

    Noise and timesteps inside a stage are drawn as training does. Of joint training only the clips
    are taken.
    """
    frames = generator.data_shape[0] if len(generator.data_shape) == 4 else None
    for i, batch in enumerate(data):
        stage = stages[i % len(stages)]
        batch = {**batch, 'inputs': batch['inputs'][:, :frames]} if frames else batch
        draw = batch_randomness(seed, i, batch['inputs'].device)
        _, _, x, t, condition = generator.noised(draw, stage, **batch)
        yield dict(x=x, t=t, grid=stage.grid, **condition)


@dataclass(frozen=True)
class _Call:
    """What a recovery is called with: see ``TokenRecovery.forward``."""

    x: Tensor
    sparse: Tensor
    grid: Grid
    dense_grid: Grid
    pos_embed: Tensor | None


class _Reached(Exception):
    """The module that was waited for is about to run."""


def _call_of(recovery: nn.Module, network: nn.Module, batch: Mapping[str, Any]) -> _Call:
    """The network's call of the recovery; what comes after it does not run."""
    calls = []

    def hook(module: nn.Module, inputs: tuple, options: dict) -> None:
        x, _, sparse = inputs
        calls.append(_Call(x=x, sparse=sparse, **options))
        raise _Reached

    handle = recovery.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        network(**batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    return calls[0]


def _without_grid(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != 'grid'}


def _reached(
    module: nn.Module, network: nn.Module, batch: Mapping[str, Any], output: bool = False
) -> Tensor:
    """What enters a module of the network, or leaves it; what comes after it does not run."""
    seen = []

    def hook(*call) -> None:
        seen.append(call[2] if output else call[1][0])
        raise _Reached

    register = module.register_forward_hook if output else module.register_forward_pre_hook
    handle = register(hook)
    try:
        network(**batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0]


def _in_running_order(
    network: SparseTransformer, batch: Mapping[str, Any]
) -> list[tuple[str, TokenRecovery, range, list[int]]]:
    """Recoveries as they run: name, module, layers of the recoveries that stand together in depth,
    and those of them that ran before."""
    index = {name: i for i, (name, _) in enumerate(network.named_layers())}
    names = {
        layer: name for name, layer in network.named_layers() if isinstance(layer, TokenRecovery)
    }
    if not names:
        raise ValueError('the network has no recovery whose merge could be fitted: set num_sdtm.')
    ran: list[nn.Module] = []
    handles = [
        layer.register_forward_pre_hook(lambda module, _: ran.append(module)) for layer in names
    ]
    try:
        network(**batch)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for layer in ran:
        module = names[layer].rpartition('.')[0]
        together = sorted(index[name] for name in names.values() if name.startswith(f'{module}.'))
        earlier = [names[other] for other in ran[: ran.index(layer)]]
        done = [index[name] for name in earlier if name.startswith(f'{module}.')]
        found.append((names[layer], layer, range(together[0], together[-1] + 1), done))
    return found


def _dense_tokens(teacher: SparseTransformer, batch: Mapping[str, Any], depth: int) -> list[Tensor]:
    """The dense model's tokens (B, ..., N, C) before layer 0, 1, ..., ``depth``."""
    condition = {key: value for key, value in batch.items() if key not in ('x', 't', 'grid')}
    net = teacher.at_size(batch['x'].shape[-2:])
    x, c = net.embed(batch['x'], batch['t'], **condition)
    tokens = [x]
    for step in islice(net.steps(), depth):
        tokens.append(step(tokens[-1], c))
    return tokens


def _as_read(tokens: Tensor, call: _Call, grid: Grid, dense_grid: Grid) -> Tensor:
    """Dense tokens where the recovery has its own: a video's (B, F, S, C) pooled in time or space.

    A recovery in time reads (B, positions, frames, C).
    """
    if len(dense_grid) == 2:
        return tokens
    if len(call.dense_grid) == 1:
        if call.x.shape[1] != tokens.shape[2]:  # s positions
            tokens = pool_tokens(tokens, dense_grid[1:], grid[1:])
        return tokens.transpose(1, 2)
    if call.x.shape[1] != tokens.shape[1]:  # f frames
        tokens = pool_tokens(tokens.transpose(1, 2), dense_grid[:1], grid[:1]).transpose(1, 2)
    return tokens

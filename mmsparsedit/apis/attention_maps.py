"""How even attention is, by layer and timestep (SparseDiT, Fig. 1).

B batch, N queries, K keys, C width; further leading dimensions are treated as batch.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmsparsedit.models.fitting import noisy_batches
from mmsparsedit.nn import Attention, SparseTransformer
from mmsparsedit.prune import Stage
from mmsparsedit.visualization.pictures import save_figure

MOST_WEIGHTS = 2**26  # of attention maps held at once


def normalised_variance(attention: Attention, x: Tensor, context: Tensor | None = None) -> float:
    """Variance over the keys of the attention weights of a query, mean over queries and heads.

    Of weights a_1 ... a_K that sum to one, (K sum a^2 - 1) / (K - 1): their variance relative to
    that of a query which reads a single key. 0 is a mean over all tokens, 1 reads one token, for
    any number of keys.

    Args:
        x, context: what ``attention`` is called with, (..., N, C) and (..., K, C).
    """
    context = x if context is None else context
    keys, width, heads = context.shape[-2], x.shape[-1], attention.num_heads
    if keys == 1:
        return 0.0
    q = attention.qkv(x)[..., :width].flatten(0, -3).unflatten(-1, (heads, -1)).transpose(1, 2)
    k = attention.qkv(context)[..., width : 2 * width].flatten(0, -3)
    k = k.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B', heads, K, C / heads)
    rows = max(1, MOST_WEIGHTS // (heads * x.shape[-2] * keys))
    total = 0.0
    for some_q, some_k in zip(q.split(rows), k.split(rows), strict=True):
        weights = (some_q @ some_k.mT / math.sqrt(width // heads)).float().softmax(-1)
        spread = (keys * weights.square().sum(-1) - 1) / (keys - 1)
        total += spread.mean((1, 2)).double().sum().item()
    return total / len(q)


@torch.no_grad()
def attention_variance(
    network: SparseTransformer, batches: Sequence[Mapping[str, Any]]
) -> list[list[float]]:
    """``normalised_variance`` of each layer, by batch; 0 for a PoolingFormer, whose map is even.

    Args:
        batches: inputs of ``network.forward`` by name, one batch for each timestep.
    """
    rows = [[0.0] * len(batches) for _ in network.named_layers()]
    for column, batch in enumerate(batches):
        with _attention_inputs(network) as seen:
            network(**batch)
        for i, (attention, x, context) in seen.items():
            rows[i][column] = normalised_variance(attention, x, context)
    return rows


@contextmanager
def _attention_inputs(network: SparseTransformer) -> Iterator[dict[int, tuple]]:
    """Collect what the attention of each layer is called with; none of PoolingFormers."""
    seen: dict[int, tuple] = {}

    def note(i: int):
        def hook(module: nn.Module, inputs: tuple) -> None:
            seen[i] = (module, *inputs, *[None] * (2 - len(inputs)))

        return hook

    handles = []
    for i, (_, layer) in enumerate(network.named_layers()):
        attention = getattr(layer, 'block', layer).attn
        if isinstance(attention, Attention):
            handles.append(attention.register_forward_pre_hook(note(i)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def analyze_attention(generator, data, timesteps: Sequence[int], seed: int = 0) -> dict:
    """The figure's numbers for a generator and collated batches of its training data.

    Args:
        data: as many batches as timesteps.
        timesteps: 0 is clean.

    Returns:
        ``timesteps``; ``layers``, names by index; ``variance``, a row for each layer.
    """
    network, prune = generator.network, generator.prune
    dense = tuple(network.token_grid)
    stages = [
        Stage(i, t, t + 1, dense if prune is None else prune.grid_at(t), 0.0)
        for i, t in enumerate(timesteps)
    ]
    batches = list(noisy_batches(generator, data, stages, seed))
    if not network.middle:
        batches = [{key: v for key, v in batch.items() if key != 'grid'} for batch in batches]
    return dict(
        timesteps=list(timesteps),
        layers=[name for name, _ in network.named_layers()],
        variance=attention_variance(network, batches),
    )


def plot_attention(found: dict, title: str, out: str | Path) -> None:
    """Draw ``analyze_attention``'s result as a PNG: a row for each layer, noise on the left."""
    import matplotlib
    import numpy as np

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    order = np.argsort(found['timesteps'])[::-1]
    values = np.array(found['variance'])[:, order]
    shown = np.ma.masked_less_equal(values, 0)
    top = float(shown.max()) if shown.count() else 1.0
    low = max(float(shown.min()), 1e-4 * top) if shown.count() else 0.1
    height = 1.6 + 0.26 * len(values)
    figure, axis = plt.subplots(figsize=(8, height), constrained_layout=True)
    axis.set_facecolor('0.85')  # of layers whose map is even by construction
    image = axis.imshow(
        shown, aspect='auto', origin='lower', norm=LogNorm(low, max(top, 1.01 * low)),
        interpolation='nearest',
    )  # fmt: skip
    axis.set_yticks(range(len(values)), found['layers'], fontsize=8)
    axis.set_xticks(range(len(order)), [found['timesteps'][i] for i in order], fontsize=8)
    axis.set_xlabel('timestep t (noise on the left, clean on the right)')
    axis.set_title(f'{title}: variance of attention, 0 even, 1 a single token')
    figure.colorbar(image, ax=axis)
    save_figure(out, figure, dpi=110)
    plt.close(figure)

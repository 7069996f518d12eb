"""Distillation of a dense model into the sparse one that continues it. B batch, N tokens, C width.

Layer i of the one corresponds to layer i of the other, so that the tokens of both can be compared
wherever the sparse model holds all of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer
from mmsparsedit.registry import MODELS

from .checkpoints import load_pretrained
from .low_precision import SamplingCopy
from .pretrained import DTYPES


class Distillation:
    """Loss terms against a frozen dense teacher that sees the same noisy data and condition.

    loss = data_weight * (the loss without a teacher)
    + output_weight * (mean squared difference of eps or velocity)
    + variance_weight * (mean squared difference of the variance channels, where learned)
    + token_weight * (squared difference of tokens, relative to the teacher's mean square; mean
    over places).

    Tokens are compared after every SDTM's recovery, every dense layer and every layer of the top.

    Cost: one dense forward pass an iteration without gradients, so F_s * 3 + F_d MACs instead of
    F_s * 3 (F_s sparse, F_d dense forward): 1.6 times at DiT-XL 256. Memory: the teacher's weights
    once in each process, also where the network is sharded.

    Not an ``nn.Module``: checkpoints, optimizer and EMA do not see the teacher. It is read when the
    first loss is asked for, so that sampling does not need it, and again when a run is resumed.

    Args:
        network: config of the student, whose dense counterpart the teacher is.
        teacher: dense checkpoint, anything that ``load_pretrained`` takes.
        source: layout of it.
        dtype: of the teacher's linear maps, ``'float32'`` or ``'bfloat16'`` (half the memory). In
            mixed precision it computes in that of training.

    Raises:
        ValueError: weights that are negative, or that leave the last layer untrained.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        *,
        teacher: str,
        source: str = 'auto',
        data_weight: float = 1.0,
        output_weight: float = 1.0,
        variance_weight: float = 0.1,
        token_weight: float = 1.0,
        dtype: str = 'float32',
    ) -> None:
        self.weights = dict(
            data=data_weight, output=output_weight, variance=variance_weight, tokens=token_weight
        )
        if min(self.weights.values()) < 0 or data_weight == output_weight == 0:
            raise ValueError(
                f'distillation with weights {self.weights}: expected at least 0 each, and data or '
                'output above 0, without which nothing trains the last layer.'
            )
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(
                f"dtype of the teacher must be 'float32' or 'bfloat16', got {dtype!r}."
            )
        self.path, self.source, self.dtype = teacher, source, DTYPES[dtype]
        self._network = network
        self._teacher: SparseTransformer | None = None

    def __deepcopy__(self, memo: dict) -> 'Distillation':
        """Itself: the frozen teacher is shared by every copy of the model that has it."""
        return self

    def teacher(self, student: SparseTransformer, device: torch.device) -> SparseTransformer:
        """The dense network with its weights, on ``device``; loaded at the first call."""
        if self._teacher is None:
            network = load_teacher(self._network, student.depth, self.path, self.source)
            if self.dtype != torch.float32:
                network = SamplingCopy(network, self.dtype).network
            self._teacher = network
        return self._teacher.to(device)

    def __call__(
        self,
        train: Callable[[], Tensor],
        student: SparseTransformer,
        x: Tensor,
        t: Tensor,
        condition: dict,
        channel_dim: int,
        grid: tuple[int, ...] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's output and the terms of distillation, means over the batch.

        Args:
            train: runs the student on ``x``, ``t`` and ``condition``.
            channel_dim: axis of channels in the output.
            grid: of the student in ``train``. Without tokens, the middle left out, its output alone
                is compared: what enters the top cannot be what went through the middle.
        """
        teacher = self.teacher(student, x.device)
        compared = self.weights['tokens'] and (grid is None or any(grid))
        entries = dense_entries(student) if compared else {}
        layers = [layer for _, layer in teacher.named_layers()] + [teacher.final_layer]
        lower = nullcontext()  # of float32: as training computes
        if self.dtype != torch.float32:
            lower = torch.autocast(x.device.type, self.dtype, cache_enabled=False)
        with torch.no_grad(), lower:
            with tokens_entering({i: layers[i] for i in entries}) as wanted:
                target = teacher(x, t, **condition).float()
        with tokens_entering(entries) as found:
            output = train()
        if len(found) < len(entries):
            raise ValueError(
                "distillation of tokens sees none inside a compiled stage: set compile_by='layer' "
                'of acceleration, or token_weight=0.'
            )
        channels = student.in_channels
        difference = (output.float() - target).square()
        terms = dict(distill_output=difference.narrow(channel_dim, 0, channels).mean())
        if student.learn_sigma:
            learned = difference.shape[channel_dim] - channels
            terms['distill_variance'] = difference.narrow(channel_dim, channels, learned).mean()
        if self.weights['tokens']:  # the same terms in every process, whatever its grid
            relative = [_relative_error(found[i], wanted[i]) for i in entries]
            terms['distill_tokens'] = (
                torch.stack(relative).mean() if relative else output.new_zeros(())
            )
        return output, terms

    def total(self, terms: Mapping[str, Tensor], distilled: Mapping[str, Tensor]) -> dict:
        """``terms`` of the loss and those of the teacher, ``loss`` their weighted sum."""
        loss = self.weights['data'] * terms['loss']
        for name, value in distilled.items():
            loss = loss + self.weights[name.removeprefix('distill_')] * value
        return {**terms, **distilled, 'loss': loss}


def dense_network(network: Mapping[str, Any], depth: int) -> dict:
    """The config of a sparse network's dense counterpart: the same layers, each on all tokens."""
    dense = {**network, 'num_bottom': 0, 'num_sdtm': 0, 'num_top': depth}
    return {key: value for key, value in dense.items() if key not in ('bottom_block', 'sdtm')}


def load_teacher(
    network: Mapping[str, Any], depth: int, checkpoint: str | Mapping, source: str = 'auto'
) -> SparseTransformer:
    """The dense counterpart of a sparse network's config, frozen, with the weights of a checkpoint.

    Raises:
        ValueError: a checkpoint that is not of the dense model.
    """
    teacher = MODELS.build(dense_network(network, depth))
    load_pretrained(teacher, checkpoint, source)
    return teacher.requires_grad_(False).eval()


def dense_entries(network: SparseTransformer) -> dict[int, nn.Module]:
    """What reads the dense tokens behind a recovery or a dense layer, by index of the layer.

    SDTMs but the first, their dense layers, layers of the top, and the last layer, whose index is
    the depth. The first argument of each are the tokens that enter layer i of the dense model.
    """
    entries: dict[int, nn.Module] = {}
    begun: set[str] = set()
    for i, (name, layer) in enumerate(network.named_layers()):
        segment, number, *inner = name.split('.')
        if segment == 'middle':
            if begun and number not in begun:
                entries[i] = network.middle[int(number)]
            elif inner[0] == 'dense':
                entries[i] = layer
            begun.add(number)
        elif segment == 'top' and (begun or number != '0'):
            entries[i] = layer
    entries[network.depth] = network.final_layer
    return entries


@contextmanager
def tokens_entering(modules: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Collect the first argument of the next call of each module."""
    seen: dict[int, Tensor] = {}

    def note(i: int) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            seen[i] = inputs[0]

        return hook

    handles = [module.register_forward_pre_hook(note(i)) for i, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    # frames and images of a video may be one axis or two
    found, wanted = found.float(), wanted.float().reshape(found.shape)
    return (found - wanted).square().mean() / wanted.square().mean()

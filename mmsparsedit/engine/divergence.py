"""Numbers of a training that are not finite: found before they displace sound ones."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook
from torch import Tensor

from .bare import bare_model
from .ema import local


class DivergenceError(FloatingPointError):
    """A loss, a gradient or a weight became NaN or infinite."""


def first_bad(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first tensor with a number that is not finite; waits for the device once.

    All processes call it where tensors are sharded; every one gets an answer if one has it.
    """
    names, flags = [], []
    for name, tensor in named:
        tensor = local(tensor.detach())
        if tensor.is_floating_point():
            names.append(name)
            flags.append(torch.isfinite(tensor).all())
    if not flags:
        return None
    bad = (~torch.stack(flags)).float()
    all_reduce(bad, 'max')
    return names[int(bad.argmax())] if bad.any() else None


def check_weights(runner) -> None:
    """Raise ``DivergenceError`` if a weight, an average or the optimizer's state is not finite."""

    def everything():
        yield from runner.model.named_parameters()
        for hook in runner.hooks:
            average = getattr(hook, 'ema_model', None)
            if average is not None:
                yield from ((f'average of {n}', p) for n, p in average.named_parameters())
        for i, state in enumerate(runner.optim_wrapper.optimizer.state.values()):
            for name, value in state.items():
                if isinstance(value, Tensor):
                    yield f'{name} of weight {i} in the optimizer', value

    name = first_bad(everything())
    if name is not None:
        raise divergence(runner, f'{name} is not finite', runner.iter)


def divergence(runner, what: str, iteration: int) -> DivergenceError:
    """The error that says what diverged, when, at which stage, and where sound weights are.

    Args:
        iteration: counted from 0.
    """
    stage = bare_model(runner).training_stage(runner.seed or 0, iteration)
    at = ''
    if stage is not None:
        grid = 'x'.join(map(str, stage.grid))
        at = f', stage {stage.index} (t {stage.t_start} to {stage.t_end - 1}, grid {grid})'
    kept = [h.last_ckpt for h in runner.hooks if isinstance(h, CheckpointHook) and h.last_ckpt]
    good = f'The last sound checkpoint is {kept[0]}' if kept else 'No checkpoint was saved yet'
    return DivergenceError(
        f'{what} after iteration {iteration + 1}{at}; nothing was saved. {good}: go on from it '
        'with a lower learning rate, with optim_wrapper.clip_grad, without mixed precision, or '
        'with optim_wrapper.skip_nonfinite=10.'
    )

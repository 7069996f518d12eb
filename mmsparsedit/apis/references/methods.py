"""Checks against public code of methods that reuse a step: which are whole, and what comes out.

Both sides have the same random weights. They walk the same trajectory, whose next input is made of
the last output; a step that only one side spares would show in all that follow, and is an error.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from mmsparsedit.models.methods import FORA, TaylorSeer
from mmsparsedit.models.methods.deciding import TeaCacheJudge

from .networks import CLASSES, DENSE, FIXED, SHAPE, generator
from .repositories import Deviation, deviation, importing_from, normal, randomise

DEPTH = 3
NETWORK = dict(type='SparseDiT', num_classes=CLASSES, num_top=DEPTH, **SHAPE, **DENSE)
OPTIONS = dict(num_classes=CLASSES, depth=DEPTH, patch_size=2, **SHAPE)
LABELS = torch.tensor([0, 3, 9, CLASSES])
TEACACHE_RULE = 'should_calc'  # the variable that holds its decision


def walk(step: Callable, num_steps: int) -> list[Tensor]:
    """Outputs ``step(x, t)`` at times that fall; x moves a little along each."""
    x, outputs = normal(len(LABELS), 4, 8, 8), []
    for t in torch.linspace(999, 0, num_steps).tolist():
        outputs.append(step(x, torch.full((len(x),), t)))
        x = x - 0.1 * outputs[-1][:, :4]
    return outputs


def compared(
    part: str, method, reference: nn.Module, theirs: Callable, num_steps: int
) -> Deviation:
    """One method at one setting.

    Args:
        theirs: the reference's step, its first layer's ``attn`` called in whole steps only.
    """
    whole: list[bool] = []
    hook = reference.blocks[0].attn.register_forward_hook(lambda *_: whole.append(True))
    counts = []

    def counting(x: Tensor, t: Tensor) -> Tensor:
        before = len(whole)
        output = theirs(x, t)
        counts.append(len(whole) > before)
        return output

    expected = walk(counting, num_steps)
    hook.remove()
    planned = [not reused for reused in method.plan([None] * num_steps)]
    if planned != counts:
        raise ValueError(f'{part}: whole steps are {planned} here and {counts} there.')
    network = generator(NETWORK, reference, dict(type='DDPMSampler')).network
    run = method.trajectory(
        method.parts(network), lambda key, function, static=True: function, num_steps
    )
    ours = walk(lambda x, t: run(x, t, None, dict(y=LABELS)), num_steps)
    return deviation(part, *zip(ours, expected, strict=True))


@torch.no_grad()
def check_fora(folder: Path) -> Iterator[Deviation]:
    num_steps = 23
    with importing_from(folder / 'src') as load:
        reference = randomise(load('models').DiT(**OPTIONS), FIXED)
    reference.cache_attn = reference.cache_mlp = None  # of another mode of it
    reference.num_steps = num_steps
    for interval in (2, 3, 4):
        reference.cache_threshold = interval
        cache = {-1: {i: {} for i in range(DEPTH)}}
        cache.update(save_cache='boost_infer_static', cache_subtype='')
        left = iter(range(num_steps - 1, -1, -1))
        yield compared(
            f'FORA, interval {interval}, {num_steps} steps', FORA(interval), reference,
            lambda x, t, cache=cache, left=left: reference(x, t, next(left), cache, LABELS),
            num_steps,
        )  # fmt: skip


@torch.no_grad()
def check_taylorseer(folder: Path) -> Iterator[Deviation]:
    num_steps = 23
    with importing_from(folder / 'TaylorSeer-DiT') as load:
        reference = randomise(load('models').DiT(**OPTIONS), FIXED)
        begin = load('cache_functions').cache_init
        for interval, order in ((3, 0), (3, 2), (4, 4), (5, 1)):
            options = dict(interval=interval, max_order=order, test_FLOPs=False)
            kept, current = begin(options, num_steps)
            left = iter(range(num_steps - 1, -1, -1))

            def theirs(x: Tensor, t: Tensor, kept=kept, current=current, left=left) -> Tensor:
                current['step'] = next(left)
                return reference(x, t, current, kept, LABELS)

            yield compared(
                f'TaylorSeer, interval {interval}, order {order}, {num_steps} steps',
                TaylorSeer(interval, order), reference, theirs, num_steps,
            )  # fmt: skip


def check_teacache(folder: Path) -> Iterator[Deviation]:
    """The rule of its Latte script with its polynomial, cut out of the function and run alone."""
    num_steps = 40
    tree = ast.parse((folder / 'eval/teacache/experiments/latte.py').read_text())
    [rule] = [node for node in ast.walk(tree) if isinstance(node, ast.If) and _decides(node)]
    code = compile(ast.Module([rule], []), 'latte.py', 'exec')
    [coefficients] = [
        ast.literal_eval(node.value)
        for node in ast.walk(rule)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'coefficients'
    ]
    changes = normal(num_steps, 4, 16, 8, seed=2) * torch.linspace(0.02, 0.2, num_steps).view(
        -1, 1, 1, 1
    )
    seen = (normal(1, 4, 16, 8) + changes.cumsum(0)).unbind()
    times = list(range(num_steps, 0, -1))
    for threshold in (0.1, 0.3, 1.0):
        state = SimpleNamespace(rel_l1_thresh=threshold, accumulated_rel_l1_distance=0)
        theirs = []
        for t, modulated in zip(times, seen, strict=True):
            names = dict(
                self=state, org_timestep=[t], all_timesteps=times, modulated_inp=modulated, np=np
            )
            exec(code, names)
            theirs.append(names[TEACACHE_RULE])
            state.previous_modulated_input = modulated
        judge = TeaCacheJudge(threshold, coefficients, num_steps)
        ours = [not judge.reuses((None, False), each) for each in seen]
        differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
        part = (
            f'TeaCache, threshold {threshold:g}, {num_steps} steps, {sum(theirs)} whole: differing'
        )
        yield Deviation(part, float(differing))


def _decides(node: ast.If) -> bool:
    """Whether both branches of an ``if`` at once assign TeaCache's decision."""
    assigned = [
        target.id
        for child in node.body
        if isinstance(child, ast.Assign)
        for target in child.targets
        if isinstance(target, ast.Name)
    ]
    return TEACACHE_RULE in assigned and 'org_timestep' in ast.unparse(node.test)

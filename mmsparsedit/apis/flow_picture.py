"""The way of the tokens through a network, as a picture: drawn from what its layers are given."""

from dataclasses import dataclass
from html import escape

import torch

from mmsparsedit.models.cost import network_macs
from mmsparsedit.nn.meta import KnownShapes, on_meta
from mmsparsedit.registry import MODELS

# of the parts of a network, by the name of the layer; what has another name is of the middle
COLOURS = {
    'bottom': ('#e69f00', 'bottom: mixes by a mean'),
    'generation': ('#56b4e9', 'generation: sparse tokens read the dense'),
    'sparse': ('#0072b2', 'sparse: sparse tokens alone'),
    'recovery': ('#b4508a', 'recovery: dense tokens read the sparse'),
    'dense': ('#7a7a7a', 'dense: all tokens'),
    'top': ('#7a7a7a', 'dense: all tokens'),
}
BAR, GAP, LEFT, TALL = 26, 6, 20, 190


@dataclass(frozen=True)
class Step:
    """A layer in the order in which it runs: its part, the tokens it writes and those it reads."""

    part: str
    written: int
    read: int


def token_flow(network, grid) -> list[Step]:
    """The layers of a network as they run on one sample at ``grid``; nothing is allocated.

    Tokens are counted in what a layer returns and in the ``context`` that it is given, those of all
    frames of a clip together.
    """
    network = on_meta(network).eval()
    steps: list[Step] = []

    def tokens(x: torch.Tensor) -> int:
        return x.numel() // network.hidden_size

    for name, layer in network.named_layers():
        part = next((p for p in reversed(name.split('.')) if p in COLOURS), 'dense')

        def watch(layer, args, kwargs, out, part=part):
            # block(x, c, context=None) and recovery(x, c, sparse, ...)
            named = kwargs.get('sparse' if part == 'recovery' else 'context')
            context = args[2] if len(args) > 2 else named
            read = tokens(out if context is None else context)
            steps.append(Step(part, tokens(out), read))

        layer.register_forward_hook(watch, with_kwargs=True)
    with torch.no_grad(), KnownShapes():
        network(**network.example_inputs(1, 'meta'), grid=grid)
    return steps


def flow_svg(model_config: dict, name: str, stage: int = -2) -> str:
    """A drawing of the token flow of a sparse generator's config at one stage of its schedule.

    Args:
        stage: of the schedule; the second from the noisy end by default.

    Raises:
        ValueError: the model is dense.
    """
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    if generator.prune is None:
        raise ValueError(f'{name} is dense: all of its layers read all tokens.')
    chosen = generator.prune.stages[stage]
    steps = token_flow(generator.network, chosen.grid)
    most = max(step.written for step in steps)
    spent = network_macs(generator.network, chosen.grid).gmacs
    width = max(680, 2 * LEFT + len(steps) * (BAR + GAP))
    parts, base = [], 70 + TALL
    for i, step in enumerate(steps):
        x = LEFT + i * (BAR + GAP)
        tall = max(6, TALL * step.written / most)
        colour = COLOURS[step.part][0]
        parts.append(
            f'<rect x="{x}" y="{base - tall:.1f}" width="{BAR}" height="{tall:.1f}" rx="3" '
            f'fill="{colour}"><title>step {i}, {step.part}: writes {step.written} tokens, '
            f'reads {step.read}</title></rect>'
        )
        before = steps[i - 1].written if i else None
        if step.written != before:
            parts.append(
                f'<text x="{x + BAR / 2}" y="{base - tall - 6:.1f}" text-anchor="middle" '
                f'font-weight="bold">{step.written}</text>'
            )
        if i % 4 == 0 or i == len(steps) - 1:
            parts.append(f'<text x="{x + BAR / 2}" y="{base + 16}" text-anchor="middle">{i}</text>')
    grid = '×'.join(map(str, chosen.grid))
    whole = '×'.join(map(str, generator.prune.token_grid))
    title = (
        f'{type(generator.network).__name__} ({name}), t = {chosen.t_start} … {chosen.t_end - 1}: '
        f'{whole} tokens, {grid} in the middle, {spent:.4g} GMACs a call'
    )
    shown = dict.fromkeys(COLOURS[step.part] for step in steps)
    legend = []
    for k, (colour, text) in enumerate(shown):
        x, y = LEFT + k % 2 * 330, base + 44 + k // 2 * 20
        legend.append(
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{y}">{text}</text>'
        )
    height = base + 60 + 20 * ((len(shown) + 1) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui,sans-serif" font-size="12" fill="#1c2128">'
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        f'<text x="{LEFT}" y="24" font-size="14" font-weight="bold">{escape(title)}</text>'
        f'<text x="{LEFT}" y="42">a bar for each layer, in the order they run; its height: the '
        f'tokens that it writes</text>{"".join(parts)}{"".join(legend)}'
        f'<text x="{LEFT}" y="{height - 8}" fill="#5b6470">{len(steps)} layers</text></svg>\n'
    )

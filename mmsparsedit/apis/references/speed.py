"""Time of a network call beside the public code of the same network, on the same weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mmsparsedit.apis.clock import spread, timed
from mmsparsedit.models import load_pretrained
from mmsparsedit.models.checkpoints import export_weights
from mmsparsedit.registry import MODELS

from .networks import FIXED
from .repositories import deviation, importing_from, normal, randomise

CLASSES = 1000


@dataclass(frozen=True)
class Pair:
    """Two functions of no argument that compute the same from the same weights and inputs."""

    name: str
    ours: Callable[[], torch.Tensor]
    theirs: Callable[[], torch.Tensor]

    def time(self, rounds: int, device: str) -> dict:
        """Seconds of theirs over those of ours, by turns: ``spread`` of the ratio in each round.

        Raises:
            ValueError: the outputs differ by more than 1e-4 of the largest.
        """
        differing = deviation(self.name, (self.ours(), self.theirs())).value  # and warms both up
        if not differing < 1e-4:
            raise ValueError(f'{self.name}: outputs differ by {differing:.1e}; time means nothing.')
        ratios = []
        for number in range(rounds):
            sides = (self.ours, self.theirs) if number % 2 else (self.theirs, self.ours)
            seconds = {side: timed(side, device) for side in sides}
            ratios.append(seconds[self.theirs] / seconds[self.ours])
        return dict(compared=self.name, deviation=differing, ratio=spread(ratios))


class TimedNetworks:
    """The networks that are timed, at one width, depth and resolution.

    Args:
        width, heads, layers: 768, 12 and 12 are DiT-B.
        latent: height and width of the input; tokens are of 2 x 2.
        batch: samples of a call.
    """

    def __init__(
        self, width: int, heads: int, layers: int, latent: int, batch: int, device: str
    ) -> None:
        self.shape = dict(input_size=latent, hidden_size=width, num_heads=heads)
        self.layers, self.device = layers, device
        self.x = normal(batch, 4, latent, latent).to(device)
        self.t = torch.linspace(0, 999, batch, device=device).round()
        self.y = torch.arange(batch, device=device) % CLASSES
        self.what = f'width {width}, {layers} layers, {latent // 2}x{latent // 2} tokens'

    def _build(self, **segments) -> nn.Module:
        network = dict(type='SparseDiT', num_classes=CLASSES, **segments, **self.shape)
        return MODELS.build(network).to(self.device).eval()

    def dit(self, folder: Path) -> Iterator[Pair]:
        """DiT's own network."""
        with importing_from(folder) as load:
            reference = load('models').DiT(num_classes=CLASSES, depth=self.layers, **self.shape)
            yield self._pair('dense', reference, 'dit', num_bottom=0, num_sdtm=0)

    def sparsedit(self, folder: Path) -> Iterator[Pair]:
        """The authors' sparse network, at a quarter of the tokens.

        Raises:
            ValueError: too few layers for a module.
        """
        modules = (self.layers - 4) // 5  # each of 1, 2, 1 and 1 layers
        if modules < 1:
            raise ValueError(
                f'a sparse network of {self.layers} layers: expected at least 9, for 2 at the '
                'bottom, a module of 5 and 2 on top.'
            )
        top = self.layers - 2 - 5 * modules
        grid = self.shape['input_size'] // 4
        options = dict(
            num_classes=CLASSES, depth=self.layers, num_poolingformer=2, num_dumbbell=modules,
            num_normal_block=top, semantic_size=grid, dumbbell_group=[1, 2, 1, 1], **self.shape,
        )  # fmt: skip
        with importing_from(folder) as load:
            reference = load('models').DiT(**options)
            reference.longshortcut = False  # which its ``forward`` reads and never sets
            yield self._pair(
                f'sparse, grid {grid}x{grid}', reference, 'sparsedit', grid=(grid, grid),
                num_bottom=2, num_sdtm=modules, num_top=top,
                sdtm=dict(block_counts=(1, 2, 1, 1)), reinject_pos_embed=False,
            )  # fmt: skip

    def diffusers(self) -> Iterator[Pair]:
        """DiT of diffusers, with its constants on both sides."""
        import diffusers

        width, heads = self.shape['hidden_size'], self.shape['num_heads']
        theirs = diffusers.DiTTransformer2DModel(
            sample_size=self.shape['input_size'], in_channels=4, out_channels=8,
            num_layers=self.layers, num_attention_heads=heads, attention_head_dim=width // heads,
            num_embeds_ada_norm=CLASSES,
        ).to(self.device).eval()  # fmt: skip
        ours = randomise(
            self._build(num_bottom=0, num_sdtm=0, num_top=self.layers, diffusers_numerics=True),
            std=0.02,
        )
        theirs.load_state_dict(export_weights(ours, 'diffusers'), strict=False)
        x, t, y = self.x, self.t, self.y
        yield Pair(
            f'dense, {self.what}',
            lambda: ours(x, t, y),
            lambda: theirs(x, timestep=t.long(), class_labels=y).sample,
        )

    def _pair(self, name: str, reference: nn.Module, source: str, grid=None, **segments) -> Pair:
        reference = randomise(reference, FIXED, std=0.02).to(self.device)
        ours = self._build(**{'num_top': self.layers, **segments})
        load_pretrained(ours, reference.state_dict(), source)
        x, t, y = self.x, self.t, self.y
        kept = {} if grid is None else dict(grid=grid)
        return Pair(
            f'{name}, {self.what}', lambda: ours(x, t, y, **kept), lambda: reference(x, t, y)
        )

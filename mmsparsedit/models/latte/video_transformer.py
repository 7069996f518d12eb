"""What Latte's networks share: frames, tables, layers in space and in time by turns.

B clips, F frames, S = H * W positions, C width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmsparsedit.nn import SparseTransformer, sincos_pos_embed_1d
from mmsparsedit.registry import MODELS

from .factorised import ClipCondition, add_to_frames, over_space, over_time


class VideoTransformer(SparseTransformer):
    """Video diffusion transformer with a bottom, a sparse middle and a top (SparseDiT, App. A.3).

    Layer 0, 2, ... work in space, layer 1, 3, ... in time. Bottom and top are whole pairs.
    ``reinject_pos_embed`` adds the position table again after each recovery in space and the frame
    table after each recovery in time.

    Args:
        num_frames: F.
        recover_order: see ``FactorisedSDTM``.
        base: arguments of ``SparseTransformer``.
    """

    temporal_block: ClassVar[dict[str, Any]] = {}  # what layers in time have otherwise

    def __init__(
        self,
        *,
        num_frames: int = 16,
        recover_order: str = 'temporal_first',
        sdtm: dict | Sequence[dict] | None = None,
        **base,
    ) -> None:
        own = dict(type='FactorisedSDTM', recover_order=recover_order)
        if self.temporal_block:
            own['temporal_block'] = self.temporal_block
        if sdtm is None or isinstance(sdtm, Mapping):
            sdtm = {**own, **(sdtm or {})}
        else:
            sdtm = [{**own, **each} for each in sdtm]
        super().__init__(sdtm=sdtm, **base)
        if num_frames < 1:
            raise ValueError(f'num_frames must be at least 1, got {num_frames}.')
        num_bottom, num_sdtm, num_top = map(len, self._segments.values())
        if num_bottom % 2 or num_top % 2:
            raise ValueError(
                f'num_bottom {num_bottom} and num_top {num_top} must be even: layers in space and '
                'in time come in pairs.'
            )
        if num_sdtm and not num_bottom:
            raise ValueError(
                'num_bottom 0 with SDTMs: the frame table enters before the first layer in time, '
                'which has to see all frames and positions. Set num_bottom to 2 or more.'
            )
        self.num_frames = num_frames
        self.data_shape = (num_frames, *self.data_shape)
        self.token_grid = (num_frames, *self.token_grid)

    def build_tables(self) -> None:
        """Register ``pos_embed`` of a frame's positions and ``temp_embed`` of the frames."""
        self.register_buffer('pos_embed', self.positions(self.token_grid[1:]))
        frames = sincos_pos_embed_1d(self.hidden_size, np.arange(self.num_frames))  # (F, C)
        self.register_buffer('temp_embed', torch.from_numpy(frames).float().unsqueeze(0))

    def build_layers(self) -> None:
        for name, layers in self._segments.items():
            in_time = {} if name == 'middle' else self.temporal_block
            own = [{**layer, **in_time} if i % 2 else layer for i, layer in enumerate(layers)]
            self.add_module(name, nn.ModuleList(map(MODELS.build, own)))

    def run_layer(self, i: int, layer: nn.Module, x: Tensor, c: ClipCondition) -> Tensor:
        """Even layers work in space, odd ones in time; layer 1 gets the frame table."""
        if i % 2 == 0:
            return over_space(layer, x, c)
        if i == 1:
            x = add_to_frames(x, self.temp_embed, c.num_images)
        return over_time(layer, x, c)

    def reinjected(self) -> dict[str, Tensor | None]:
        temp_embed = self.temp_embed if self.reinject_pos_embed else None
        return dict(super().reinjected(), temp_embed=temp_embed)

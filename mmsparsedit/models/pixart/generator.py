"""The generator of images from text: ``DiffusionGenerator`` conditioned on captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsparsedit.models.generators import DiffusionGenerator
from mmsparsedit.registry import MODELS
from mmsparsedit.utils.npz import NpzArray


@MODELS.register_module()
class TextToImageGenerator(DiffusionGenerator):
    """Generator conditioned on captions: as prompts, or as features of a text encoder.

    A batch carries ``prompt`` (strings), or ``y`` (B, L, caption_channels) and ``mask`` (B, L). A
    dropped caption is replaced by the network's null caption and keeps its own mask, in training
    and in the null half of guidance, as PixArt does.

    Args:
        mask_in_guidance: guided calls read the valid tokens of captions only, as PixArt's at 256 px
            and its DPM-Solver path at any size. False reads all of them, padding too: what its
            size-conditioned network does on the IDDPM path (``PixArtMS.forward_with_cfg`` passes
            no mask on).
        text_encoder: for prompts; None for a generator that only reads features. It is not part
            of the module tree, so that neither EMA nor checkpoints copy it.
        null_caption: ``.npz`` of an encoded empty caption (``extract_text_features.py`` writes
            it), for weights that come without a null caption (diffusers' format). A checkpoint
            that has one overrides it.
        pixels_per_cell: pixels of an image along a side of a latent cell; tells a micro-conditioned
            network the size of the image where a batch does not.
        base: arguments of ``DiffusionGenerator``.
    """

    def __init__(
        self,
        *,
        text_encoder: dict | None = None,
        null_caption: str | None = None,
        pixels_per_cell: int = 8,
        mask_in_guidance: bool = True,
        **base,
    ) -> None:
        super().__init__(**base)
        self.mask_in_guidance = mask_in_guidance
        self._text_encoder = [None if text_encoder is None else MODELS.build(text_encoder)]
        self.pixels_per_cell = pixels_per_cell
        self._check_text_encoder()
        if null_caption is not None:
            self.network.set_null_caption(*_read_null_caption(null_caption))

    @property
    def text_encoder(self):
        return self._text_encoder[0]

    def _check_text_encoder(self) -> None:
        encoder, network = self.text_encoder, self.network
        if encoder is None:
            return
        if encoder.channels not in (None, network.caption_channels):
            raise ValueError(
                f'the text encoder has {encoder.channels} channels, the network reads '
                f'{network.caption_channels}: set caption_channels to the width of the encoder.'
            )
        if encoder.max_length > network.model_max_length:
            raise ValueError(
                f'the text encoder gives up to {encoder.max_length} tokens, the network reads '
                f'{network.model_max_length}: set max_length and model_max_length alike.'
            )

    def condition(
        self,
        prompt: Sequence[str] | None = None,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        img_hw: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
        **unused,
    ) -> dict[str, Tensor]:
        """The network's conditioning: text features, their mask, sizes where it asks."""
        if y is None:
            y, mask = self.encode(prompt)
        y = y.to(self.device, torch.float32)
        mask = torch.ones(y.shape[:2], dtype=torch.long) if mask is None else mask
        mask = mask.to(self.device)
        self.network.check_captions(y, mask)
        condition = dict(y=y, mask=mask)
        if self.network.micro_condition:
            height, width = (side * self.pixels_per_cell for side in self.network.input_size)
            if img_hw is None:
                img_hw = torch.tensor([[height, width]]).expand(len(y), 2)
            if aspect_ratio is None:
                aspect_ratio = torch.tensor([[height / width]]).expand(len(y), 1)
            condition['img_hw'] = img_hw.to(self.device, torch.float32)
            condition['aspect_ratio'] = aspect_ratio.to(self.device, torch.float32).view(-1, 1)
        return condition

    def encode(self, prompt: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        """Features (B, L, caption_channels) and mask (B, L) of prompts."""
        if prompt is None:
            raise ValueError(
                'no caption: a batch needs prompt (strings), or y and mask (text features). Use a '
                'data set of captions, or requests with prompts.'
            )
        if self.text_encoder is None:
            raise ValueError(
                'prompts need a text encoder, and the config has none: set model.text_encoder='
                "dict(type='T5TextEncoder', pretrained=FOLDER)."
            )
        return self.text_encoder.encode(list(prompt), self.device)

    def drop(self, condition: dict[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
        """The condition with the captions where ``dropped`` (B,) replaced by the null caption."""
        y = condition['y']
        null = self.network.y_embedder.y_embedding[: y.shape[1]].to(y)
        return {**condition, 'y': torch.where(dropped[:, None, None], null, y)}

    def guided_condition(self, condition: dict[str, Tensor], batch: int) -> dict[str, Tensor]:
        both = super().guided_condition(condition, batch)
        if not self.mask_in_guidance:
            both['mask'] = torch.ones_like(both['mask'])
        return both


def _read_null_caption(path: str) -> tuple[Tensor, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'null_caption {path!r} does not exist: extract_text_features.py writes '
            'null_caption.npz beside the features.'
        )
    y, mask = (NpzArray(path, key).read() for key in ('caption_feature', 'attention_mask'))
    if y.ndim != 3 or mask.shape != y.shape[:2] or y.dtype.kind != 'f' or not np.isfinite(y).all():
        raise ValueError(
            f'null_caption {path}: got features {y.shape} with a mask {mask.shape}, expected '
            '(1, L, C) and (1, L) of finite numbers. Write it again with extract_text_features.py.'
        )
    return torch.from_numpy(y.astype(np.float32))[0], torch.from_numpy(mask)[0]

"""What reads a caption (PixArt-alpha, Chen et al. 2023): cross-attention and adaLN-single.

B batch, N tokens of the layer, L caption tokens, S valid ones of the whole batch, C width.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmsparsedit.registry import MODELS

from .attention import Attention, PoolingAttention
from .attention_kernels import ChosenKernels, attention
from .blocks import Mlp, layer_norm, modulate
from .embeddings import TimestepEmbedder


class CaptionTokens(NamedTuple):
    """Caption tokens as every layer reads them.

    Attributes:
        tokens: (B, L, C), or packed (S, C): valid tokens only, one caption behind the other.
        rows: (B, L) row of ``tokens`` for each place when packed; padding names any row.
        valid: (B, L) bool, at least one per caption; None when all are.
        present: (B, 1, 1), 0 for a caption without any valid token, which nothing is read from.
        kept: keys and values (B, L, C) of every layer that reads them, of one layer where it has
            been chosen; None where each layer computes them from ``tokens``, which is then None.
    """

    tokens: Tensor | None
    rows: Tensor | None = None
    valid: Tensor | None = None
    present: Tensor | None = None
    kept: tuple | None = None


class PixArtCondition(NamedTuple):
    """What conditions the layers: timestep (B, C), adaLN-single's (B, 6, C), and the caption."""

    t: Tensor
    modulation: Tensor
    text: CaptionTokens


class CaptionEmbedder(nn.Module):
    """Text features (B, L, caption_channels) -> caption tokens, and the null caption.

    ``y_embedding`` [model_max_length, caption_channels] stands for "no caption". It is a buffer:
    random numbers that are saved, not trained (PixArt). Captions are dropped by whoever trains,
    not here.

    Args:
        pack: project valid tokens only, here and in every layer. The numbers are the same, the
            linear maps of padding are saved; shapes depend on the data then.
    """

    y_embedding: Tensor

    def __init__(
        self, caption_channels: int, hidden_size: int, max_length: int, pack: bool = False
    ) -> None:
        super().__init__()
        self.pack = pack
        self.y_proj = CaptionProjection(caption_channels, hidden_size)
        # the same in every process and run: a checkpoint that lacks it still gives one answer
        fixed = torch.Generator().manual_seed(0)
        null = torch.randn(max_length, caption_channels, generator=fixed, device='cpu')
        self.register_buffer('y_embedding', null / caption_channels**0.5)

    def forward(self, y: Tensor, mask: Tensor | None = None) -> CaptionTokens:
        """Project ``y`` (B, L, caption_channels); ``mask`` (B, L) is nonzero for valid tokens."""
        if mask is None:
            return CaptionTokens(self.y_proj(y))
        valid = mask.bool()
        present = valid.any(dim=1, keepdim=True)  # (B, 1)
        # softmax over nothing is undefined: an absent caption reads its first place, times zero
        first = torch.arange(valid.shape[1], device=valid.device) == 0
        valid = valid | (first & ~present)
        present = present.to(y.dtype)[:, :, None]  # (B, 1, 1)
        if not self.pack:
            return CaptionTokens(self.y_proj(y), None, valid, present)
        rows = (valid.flatten().cumsum(0) - 1).view_as(valid)  # padding: the valid token before it
        return CaptionTokens(self.y_proj(y[valid]), rows, valid, present)


class CaptionProjection(nn.Module):
    """Linear, GELU (tanh), linear: width of the text encoder -> C (PixArt's ``y_proj``)."""

    def __init__(self, caption_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(caption_channels, hidden_size)
        self.act = nn.GELU(approximate='tanh')
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(y)))


class SizeEmbedder(TimestepEmbedder):
    """Numbers (B, n) -> (B, n * width): each embedded like a timestep (PixArt's 1024-MS)."""

    def forward(self, sizes: Tensor) -> Tensor:
        return super().forward(sizes.flatten()).view(sizes.shape[0], -1)


class CrossAttention(nn.Module):
    """Multi-head attention from the tokens that a layer holds to its caption."""

    fp8_linears = ('q_linear', 'proj')
    kernels: ChosenKernels | None = None

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: CaptionTokens) -> Tensor:
        """Read for every token of ``x`` (B, ..., N, C) the valid tokens of its sample's caption."""
        shape = x.shape
        x = x.flatten(1, -2)  # all tokens of a sample read one caption
        k, v = self.keys_values(text) if text.kept is None else text.kept
        attend = None if text.valid is None else text.valid[:, None, None, :]  # (B, 1, 1, L)
        q, k, v = (self._split_heads(part) for part in (self.q_linear(x), k, v))
        out = attention(self.kernels, q, k, v, attend)  # (B, heads, N, C / heads)
        return self.proj(out.transpose(1, 2).reshape(shape))

    def keys_values(self, text: CaptionTokens) -> tuple[Tensor, Tensor]:
        """Keys and values (B, L, C) of captions, which depend on neither ``x`` nor the timestep."""
        kv = self.kv_linear(text.tokens)
        if text.rows is not None:
            kv = kv[text.rows]  # (B, L, 2C)
        k, v = kv.chunk(2, dim=-1)
        return k, v if text.present is None else v * text.present

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def over_tokens(modulation: Tensor, x: Tensor) -> Tensor:
    """(B, n, C) with an axis of one for each that tokens ``x`` (B, ..., N, C) have more."""
    return modulation if x.ndim == 3 else modulation.unflatten(1, (-1, *[1] * (x.ndim - 3)))


@MODELS.register_module()
class PixArtBlock(nn.Module):
    """PixArt's block: self-attention, cross-attention to the caption, MLP, under adaLN-single.

    Shift, scale and gate are the network's common six plus a table of the block's own. The
    cross-attention reads the tokens as they are, with neither norm nor gate. ``context`` concerns
    self-attention alone, as in ``TransformerBlock``: token generation and recovery change what
    self-attention reads, and the caption is read by whatever tokens the layer holds (SparseDiT,
    Sec. 4.3).

    Args:
        captions: False leaves the cross-attention out (Latte's layers in time).
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0, captions: bool = True
    ) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)
        self.norm1 = layer_norm(hidden_size)
        self.attn = self.build_attention(hidden_size, num_heads)
        self.cross_attn = CrossAttention(hidden_size, num_heads) if captions else None
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio)

    def build_attention(self, hidden_size: int, num_heads: int) -> nn.Module:
        return Attention(hidden_size, num_heads)

    @torch.no_grad()
    def init_weights(self) -> None:
        """What reads captions starts at zero; the table was drawn where it was made (PixArt)."""
        if self.cross_attn is not None:
            nn.init.zeros_(self.cross_attn.proj.weight)

    def forward(self, x: Tensor, c: PixArtCondition, context: Tensor | None = None) -> Tensor:
        """Update tokens ``x`` (B, ..., N, C) under ``c``, self-attention reading ``context``."""
        modulation = over_tokens(self.scale_shift_table + c.modulation, x)  # (B, 6, ..., C)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=1)  # (B, 1, ..., C)
        h = modulate(self.norm1(x), shift1, scale1)
        if context is None:
            attended = self.attn(h)
        else:
            attended = self.attn(h, modulate(self.norm1(context), shift1, scale1))
        x = x + gate1 * attended
        if self.cross_attn is not None:
            x = x + self.cross_attn(x, c.text)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


@MODELS.register_module()
class PixArtPoolingBlock(PixArtBlock):
    """PixArt's block whose self-attention is a mean (SparseDiT, Eq. 1); a mean has no heads."""

    def build_attention(self, hidden_size: int, num_heads: int) -> nn.Module:
        return PoolingAttention(hidden_size)


class PixArtFinalLayer(nn.Module):
    """Tokens (B, ..., N, C), timestep embedding (B, C) -> patches (B, ..., N, p * p * C_out)."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, hidden_size) / hidden_size**0.5)

    @torch.no_grad()
    def init_weights(self) -> None:
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        modulation = over_tokens(self.scale_shift_table + t[:, None], x)  # (B, 2, ..., C)
        shift, scale = modulation.chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class ReadsCaptions:
    """What generators ask of a network that reads captions, beside the contract of all."""

    caption_channels: int
    model_max_length: int
    micro_condition = False
    y_embedder: CaptionEmbedder

    def number_readers(self) -> None:
        """Make every layer that reads captions find its own among keys and values that are kept.

        By a hook, which stays outside of what is compiled layer by layer: layers share a function.
        """
        places = {id(reader): place for place, reader in enumerate(self._readers())}
        for _, layer in self.named_layers():
            reader = getattr(layer, 'block', layer).cross_attn
            if reader is not None:
                layer.register_forward_pre_hook(partial(_choose_kept, places[id(reader)]))

    def _readers(self) -> list[CrossAttention]:
        return [module for module in self.modules() if isinstance(module, CrossAttention)]

    def read_once(self, condition: dict) -> dict:
        """``condition`` with captions projected, and keys and values of every layer computed.

        ``y`` becomes ``CaptionTokens``, which ``forward`` takes in its place: the numbers are those
        of the features, to the bit. They take 2 L C numbers for each sample and layer.
        """
        y, mask = condition['y'], condition.get('mask')
        self.check_captions(y, mask)
        text = self.y_embedder(y, mask)
        # contiguous, as a batch that is filled up is: compiled functions see the same layout
        kept = tuple(
            tuple(part.contiguous() for part in reader.keys_values(text))
            for reader in self._readers()
        )
        text = CaptionTokens(None, valid=text.valid, kept=kept)
        return {**condition, 'y': text, 'mask': None}

    def read_captions(self, y: Tensor | CaptionTokens, mask: Tensor | None) -> CaptionTokens:
        """Caption tokens of features ``y`` (B, L, caption_channels), or those read already."""
        if isinstance(y, CaptionTokens):
            return y
        self.check_captions(y, mask)
        return self.y_embedder(y, mask)

    @torch.no_grad()
    def set_null_caption(self, y: Tensor, mask: Tensor) -> None:
        """Make an encoded empty caption the null caption, for weights that come without one.

        The valid tokens are repeated over all places. T5 gives "" one token, and attention over
        copies of one token is attention to it: whatever mask the null half of guidance has, the
        result is that of reading "" alone (diffusers' pipeline).

        Args:
            y: features (L, caption_channels) of the text encoder.
            mask: (L,), 1 for valid tokens.
        """
        if y.ndim != 2 or y.shape[1] != self.caption_channels or mask.shape != y.shape[:1]:
            raise ValueError(
                f'null caption of shape {tuple(y.shape)} with a mask of {tuple(mask.shape)}: '
                f'expected (L, {self.caption_channels}) and (L,).'
            )
        valid = y[mask.bool()]
        if not len(valid):
            raise ValueError('the null caption has no valid token: encode "" with its end token.')
        places = torch.arange(self.model_max_length, device=valid.device) % len(valid)
        self.y_embedder.y_embedding.copy_(valid[places])

    def check_captions(self, y: Tensor, mask: Tensor | None = None) -> None:
        """Raise ValueError if features ``y`` and ``mask`` are not what this network reads."""
        most, width = self.model_max_length, self.caption_channels
        if y.ndim != 3 or y.shape[2] != width or not 1 <= y.shape[1] <= most:
            raise ValueError(
                f'captions of shape {tuple(y.shape)}: expected (B, L, {width}) with L of 1 to '
                f'{most}. Set caption_channels to the width of the text encoder, and '
                'model_max_length to what it was trained with, or cut the captions.'
            )
        if mask is not None and mask.shape != y.shape[:2]:
            raise ValueError(
                f'mask of shape {tuple(mask.shape)} for captions of {tuple(y.shape)}: expected '
                f'{tuple(y.shape[:2])}, 1 for valid tokens.'
            )


def _choose_kept(place: int, layer: nn.Module, args: tuple) -> tuple | None:
    x, c, *rest = args
    if c.text.kept is None:
        return None
    return x, c._replace(text=c.text._replace(kept=c.text.kept[place])), *rest

"""Text encoders: transformers' T5, and a small deterministic one for demonstrations and tests.

An encoder has ``channels`` (None while unknown), ``max_length``, ``encode(captions, device)`` ->
features (B, L, channels) float32 and mask (B, L) int64, 1 for valid tokens, ``check()`` and
``digest()``.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsparsedit.models.pretrained import DTYPES, Pretrained, weights_digest
from mmsparsedit.nn.embeddings import sincos_pos_embed_1d
from mmsparsedit.registry import MODELS
from mmsparsedit.utils.files import read_json

from .caption_cleaning import clean_caption


class TextEncoder:
    """What encoders share: they are frozen, so every copy of a model holds the same one."""

    max_length: int

    @property
    def channels(self) -> int | None:
        raise NotImplementedError

    def encode(
        self, captions: list[str], device: torch.device | str = 'cpu'
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def check(self) -> None:
        """Raise now the error that a missing encoder would raise at first use; loads nothing."""

    def digest(self) -> str:
        """SHA-256 of what decides the features."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict) -> TextEncoder:
        return self


@MODELS.register_module()
class T5TextEncoder(Pretrained, TextEncoder):
    """transformers' T5 encoder (Raffel et al. 2020), loaded at first use; PixArt's T5-v1.1-XXL.

    Captions are cleaned, cut to ``max_length`` tokens with the end token, and padded to it. Frozen,
    in eval mode, without gradients; it moves to the device it is asked for.

    Args:
        pretrained: folder of the model and its tokenizer, folder of a pipeline (``text_encoder``
            and ``tokenizer`` inside), or the name of a model that is on this machine already.
        max_length: tokens; 120 for PixArt-alpha.
        dtype: of the computation. T5 overflows in float16.
        clean: clean captions as PixArt's data were (``clean_caption``).
        batch_size: captions encoded at once.
        local_files_only: False lets transformers download a model that is not on this machine.

    Raises:
        FileNotFoundError: at construction, when ``pretrained`` looks like a folder but is none or
            holds no model; at first use, when no local copy of a name exists.
    """

    library = 'transformers'
    wanted = (
        'a folder that holds a T5 encoder and its tokenizer, or both as text_encoder and tokenizer '
        '(PixArt-alpha uses T5-v1.1-XXL; its pipelines have these folders)'
    )

    def __init__(
        self,
        pretrained: str,
        max_length: int = 120,
        dtype: str = 'bfloat16',
        clean: bool = True,
        batch_size: int = 16,
        local_files_only: bool = True,
    ) -> None:
        if dtype not in ('bfloat16', 'float32'):
            raise ValueError(f"T5TextEncoder: dtype must be 'bfloat16' or 'float32', got {dtype!r}")
        if max_length < 1 or batch_size < 1:
            raise ValueError(
                f'T5TextEncoder: got max_length={max_length}, batch_size={batch_size}, expected '
                'at least 1.'
            )
        inside = Path(pretrained, 'text_encoder').is_dir()
        super().__init__(pretrained, local_files_only, 'text_encoder' if inside else None)
        self.max_length = max_length
        self.dtype = DTYPES[dtype]
        self.clean = clean
        self.batch_size = batch_size
        self._loaded: tuple | None = None

    @property
    def channels(self) -> int | None:
        """Width of the features, from the folder's config; None for a name not yet loaded."""
        if self._loaded is not None:
            return self._loaded[1].config.d_model
        config = self.folder / 'config.json'
        if not config.is_file():
            return None
        return read_json(config, advice='Copy the whole folder again.').get('d_model')

    def _load(self) -> tuple:
        """(tokenizer, encoder)."""
        if self._loaded is not None:
            return self._loaded
        try:
            import transformers
        except ImportError as error:
            raise self.not_installed() from error
        inside = Path(self.pretrained, 'tokenizer')
        tokenizer = str(inside) if inside.is_dir() else self.pretrained
        model = str(self.folder) if Path(self.pretrained).is_dir() else self.pretrained
        dtype = 'dtype' if int(transformers.__version__.split('.')[0]) >= 5 else 'torch_dtype'
        local = dict(local_files_only=self.local_files_only)
        try:
            read = transformers.AutoTokenizer.from_pretrained(tokenizer, **local)
            encoder = transformers.T5EncoderModel.from_pretrained(
                model, **local, **{dtype: self.dtype}
            )
        except (OSError, ValueError) as error:
            what = 'tokenizer and encoder (a spiece.model needs the package sentencepiece)'
            raise self.unreadable(error, what) from error
        self._loaded = (read, encoder.requires_grad_(False).eval())
        return self._loaded

    @torch.no_grad()
    def encode(
        self, captions: list[str], device: torch.device | str = 'cpu'
    ) -> tuple[Tensor, Tensor]:
        """Features (B, max_length, channels) float32 and mask (B, max_length) of captions.

        Features stand at padded places too, as T5 computes them; the mask says which count.
        """
        tokenizer, encoder = self._load()
        if next(encoder.parameters()).device != torch.device(device):
            encoder.to(device)
        if self.clean:
            captions = [clean_caption(caption) for caption in captions]
        features, masks = [], []
        for start in range(0, len(captions), self.batch_size):
            tokens = tokenizer(
                captions[start : start + self.batch_size],
                max_length=self.max_length,
                padding='max_length',
                truncation=True,
                return_tensors='pt',
            )
            ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
            features.append(encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float())
            masks.append(mask)
        return torch.cat(features), torch.cat(masks)

    def digest(self) -> str:
        tokenizer, encoder = self._load()
        sha = hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
        sha.update(f'{self.max_length} {self.dtype} {self.clean}'.encode())
        return weights_digest(encoder, sha)

    def __repr__(self) -> str:
        return f'T5TextEncoder({self.pretrained!r}, max_length={self.max_length})'


@MODELS.register_module()
class HashTextEncoder(TextEncoder):
    """Deterministic features without weights, for demonstrations and tests; it knows no language.

    Each word (letters and digits, lower case) has a vector of normal numbers seeded by its SHA-256,
    each place a sine-cosine vector. A token is the sum of its word's vector, its place's, that of
    the word before it (turned by one channel, so that "small three" is not "three small") and the
    mean of all words times the root of their number: as with T5 it knows the caption around it. An
    end token follows, so that an empty caption has one token; captions are cut to ``max_length``.
    """

    END = '</s>'

    def __init__(self, channels: int = 64, max_length: int = 16) -> None:
        if channels < 2 or channels % 2 or max_length < 1:
            raise ValueError(
                f'HashTextEncoder: got channels={channels}, max_length={max_length}, expected an '
                'even number of channels and at least one token.'
            )
        self._channels = channels
        self.max_length = max_length
        self._places = sincos_pos_embed_1d(channels, np.arange(max_length))

    @property
    def channels(self) -> int:
        return self._channels

    def encode(
        self, captions: list[str], device: torch.device | str = 'cpu'
    ) -> tuple[Tensor, Tensor]:
        features = np.zeros((len(captions), self.max_length, self.channels), np.float32)
        mask = np.zeros((len(captions), self.max_length), np.int64)
        for i, caption in enumerate(captions):
            words = re.findall(r'\w+', caption.lower())[: self.max_length - 1] + [self.END]
            vectors = np.stack([_word_vector(word, self.channels) for word in words])
            before = np.roll(
                np.concatenate([np.zeros((1, self.channels)), vectors[:-1]]), 1, axis=1
            )
            around = vectors.sum(axis=0) / len(words) ** 0.5
            features[i, : len(words)] = vectors + before + around + self._places[: len(words)]
            mask[i, : len(words)] = 1
        return torch.from_numpy(features).to(device), torch.from_numpy(mask).to(device)

    def digest(self) -> str:
        return hashlib.sha256(
            f'hash in context {self.channels} {self.max_length}'.encode()
        ).hexdigest()


@lru_cache(maxsize=65536)
def _word_vector(word: str, channels: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], 'little')
    return np.random.default_rng(seed).standard_normal(channels)

"""Where the reference values lie; a test that needs them is skipped, by name, without them."""

import os
from pathlib import Path

import pytest
import torch

FOLDER = Path(
    os.environ.get('MMSPARSEDIT_PARITY', Path(__file__).resolve().parents[2] / 'shared' / 'parity')
)


def load_reference(name: str) -> dict:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f'reference values {path} are absent (set MMSPARSEDIT_PARITY)')
    return torch.load(path, weights_only=True)

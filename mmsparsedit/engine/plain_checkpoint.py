"""A checkpoint as tensors and plain containers, which load without running code, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def plain(value: Any, where: str = 'checkpoint') -> Any:
    """The same content as tensors, strings, numbers, lists and dicts, tensors on the CPU.

    Raises:
        TypeError: an object that none of these can stand for, named by its place.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.generic):  # before float: numpy's float64 is one too
        return value.item()
    if value is None or isinstance(value, str | bool | int | float | bytes):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(
            history_log=torch.from_numpy(np.asarray(log, dtype=np.float64).copy()),
            history_count=torch.from_numpy(np.asarray(count, dtype=np.int64).copy()),
        )
    if isinstance(value, Mapping):
        return {plain(k, where): plain(v, f'{where}[{k!r}]') for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
    raise TypeError(
        f'{where} is a {type(value).__name__}: a checkpoint holds tensors and plain containers '
        'only, so that it loads without running code. Store what describes the object instead.'
    )


def restored(message_hub: Mapping) -> dict:
    """The message hub's state with its histories as objects again."""
    scalars = {
        key: HistoryBuffer(value['history_log'].tolist(), value['history_count'].tolist())
        for key, value in message_hub['log_scalars'].items()
    }
    return {**message_hub, 'log_scalars': scalars}

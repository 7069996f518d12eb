"""Time on a device, and what the device is: what a benchmark reads off the machine."""

import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch


def on_gpu(device: str) -> bool:
    return torch.device(device).type == 'cuda'


def synchronize(device: str) -> None:
    if on_gpu(device):
        torch.cuda.synchronize(device)


def timed(function: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds that a call of a function takes, until the device has finished."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        function()
    synchronize(device)
    return (time.perf_counter() - began) / times


def matrix_rate(device: str, dtype: torch.dtype, size: int | None = None) -> float:
    """MACs per second of one large product of random matrices, the quickest of five."""
    n = size or (8192 if on_gpu(device) else 1536)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return n**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and quartiles."""
    marks = np.quantile(values, (0.5, 0, 0.25, 0.75, 1)).tolist()
    return dict(zip(('median', 'min', 'q1', 'q3', 'max'), marks, strict=True))


def machine(device: str) -> dict:
    """What the figures were measured on."""
    if on_gpu(device):
        return dict(device=torch.cuda.get_device_name(device), torch=torch.__version__)
    file = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.*)', file.read_text()) if file.is_file() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return dict(device=f'{name}, {torch.get_num_threads()} threads', torch=torch.__version__)

"""Time and memory of a device: what a benchmark reads off the machine."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch


def synchronize(device: str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds that a function takes, until the device has finished."""
    synchronize(device)
    began = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - began


def matrix_rate(device: str, dtype: torch.dtype, size: int | None = None) -> float:
    """MACs per second of one large product of random matrices, the quickest of five."""
    n = size or (8192 if torch.device(device).type == 'cuda' else 1536)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return n**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and quartiles."""
    low, _, high = (
        statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else (values * 3)
    )
    return dict(median=statistics.median(values), min=min(values), q1=low, q3=high, max=max(values))


def machine(device: str) -> dict:
    """What the figures were measured on."""
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{processor()}, {torch.get_num_threads()} threads'
    return dict(device=name, torch=torch.__version__)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    file = Path('/proc/cpuinfo')
    for line in file.read_text().splitlines() if file.is_file() else ():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def allocated(device: str) -> int:
    """Bytes that tensors hold on a GPU; 0 on the CPU, where nobody counts."""
    return torch.cuda.memory_allocated(device) if torch.device(device).type == 'cuda' else 0


def reset_peak(device: str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: str) -> int:
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == 'cuda' else 0

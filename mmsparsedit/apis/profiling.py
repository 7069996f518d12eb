"""What PyTorch's profiler sees of a function: its kernels by kind, its memory on a CPU."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .clock import synchronize

# the first pattern found in the name of a kernel (GPU) or operator (CPU) decides
KINDS = (
    ('attention', r'attention|flash|fmha|sdpa'),
    ('matrix products', r'(\b|_)(add|b|baddb)?mm(\b|_)|gem[mv]|cublas|cutlass|nvjet|xmma|'
     r'linear|conv'),
    ('copies', r'memcpy|memset|copy|\bcat\b|catarray|\bto\b|clone|contiguous'),
    ('norms and elementwise', r'norm|elementwise|triton|fused|softmax|reduce|gelu|silu|'
     r'\b(add|sub|mul|div|exp|mean|sum|sin|cos|cumsum|index|where|fill|upsample\w*)_?\b'),
)  # fmt: skip
OTHER, IDLE = 'other', 'idle'


def kind_of(name: str) -> str:
    """The kind of work behind the name of a kernel or operator."""
    for kind, pattern in KINDS:
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return OTHER


def seconds_by_name(function: Callable[[], object], device: str) -> Counter:
    """Seconds of each kernel of a call on a GPU, of each operator on a CPU (its own, without those
    it calls), by name; on a GPU also the time between kernels, as ``idle``."""
    on_gpu = torch.device(device).type == 'cuda'
    synchronize(device)
    with _recording(ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU) as recorded:
        function()
        synchronize(device)
    seconds: Counter = Counter()
    if not on_gpu:
        for operator in recorded.key_averages():
            seconds[operator.key] += operator.self_cpu_time_total / 1e6
        return seconds
    kernels = [e for e in recorded.events() if e.device_type == DeviceType.CUDA]
    for kernel in kernels:
        seconds[kernel.name] += kernel.time_range.elapsed_us() / 1e6
    spans = sorted((kernel.time_range.start, kernel.time_range.end) for kernel in kernels)
    seconds[IDLE] = _gaps(spans) / 1e6
    return seconds


def shares(seconds: Counter, top: int = 10) -> dict:
    """``kinds``: share of the time by kind, largest first; ``kernels``: the ``top`` longest."""
    total = sum(seconds.values())
    kinds: Counter = Counter()
    for name, spent in seconds.items():
        kinds[IDLE if name == IDLE else kind_of(name)] += spent
    return dict(
        kinds={kind: spent / total for kind, spent in kinds.most_common()},
        kernels=[dict(name=n, share=spent / total) for n, spent in seconds.most_common(top)],
    )


def cpu_peak(function: Callable[[], object]) -> int:
    """Bytes that tensors on the CPU take at most during a call, without those from before it."""
    with _recording(ProfilerActivity.CPU, profile_memory=True) as recorded:
        function()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == '[memory]')
    return max(itertools.accumulate((size for _, size in changes), initial=0))


def _recording(activity: ProfilerActivity, **options) -> profile:
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it reports its own start as an error
    return profile(activities=[activity], **options)


def _gaps(spans: list[tuple[float, float]]) -> float:
    """The time that none of the spans, sorted by their beginnings, covers between the first and the
    last."""
    gaps, end = 0.0, spans[0][0] if spans else 0.0
    for begin, finish in spans:
        gaps += max(0.0, begin - end)
        end = max(end, finish)
    return gaps

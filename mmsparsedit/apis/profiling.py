"""What PyTorch's profiler sees of a function: its kernels by kind, and its memory."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .clock import on_gpu, synchronize

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
    found = (kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE))
    return IDLE if name == IDLE else next(found, OTHER)


def seconds_by_name(function: Callable[[], object], device: str) -> Counter:
    """Seconds of each kernel of a call on a GPU, of each operator on a CPU (its own, without those
    it calls), by name; on a GPU also the time between kernels, as ``idle``."""
    gpu = on_gpu(device)
    synchronize(device)
    with _recording(ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU) as recorded:
        function()
        synchronize(device)
    seconds: Counter = Counter()
    wanted = DeviceType.CUDA if gpu else DeviceType.CPU
    events = [e for e in recorded.events() if e.device_type == wanted]
    for event in events:
        spent = event.time_range.elapsed_us() if gpu else event.self_cpu_time_total
        seconds[event.name] += spent / 1e6
    if gpu:
        seconds[IDLE] = _gaps([(e.time_range.start, e.time_range.end) for e in events]) / 1e6
    return seconds


def shares(seconds: Counter, top: int = 10) -> dict:
    """``kinds``: share of the time by kind, largest first; ``kernels``: the ``top`` longest."""
    total = sum(seconds.values())
    kinds: Counter = Counter()
    for name, spent in seconds.items():
        kinds[kind_of(name)] += spent
    return dict(
        kinds={kind: spent / total for kind, spent in kinds.most_common()},
        kernels=[dict(name=n, share=spent / total) for n, spent in seconds.most_common(top)],
    )


def peak_memory(function: Callable[[], object], device: str) -> int:
    """Bytes that tensors take at most during a call, without those from before it."""
    if on_gpu(device):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with _recording(ProfilerActivity.CPU, profile_memory=True) as recorded:
        function()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == '[memory]')
    return max(itertools.accumulate((size for _, size in changes), initial=0))


def _recording(activity: ProfilerActivity, **options) -> profile:
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it reports its own start as an error
    return profile(activities=[activity], **options)


def _gaps(spans: list[tuple[float, float]]) -> float:
    """The time that none of the spans covers between the first and the last."""
    spans = sorted(spans)
    ends = itertools.accumulate((end for _, end in spans), max)
    return sum(max(0.0, begin - end) for (begin, _), end in zip(spans[1:], ends, strict=False))

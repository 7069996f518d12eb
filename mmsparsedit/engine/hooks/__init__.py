"""Hooks of training, validation and test, one idea a file."""

from .checkpoint_hook import CheckpointHook
from .delayed_clip_hook import DelayedClipHook
from .invalid_loss_hook import InvalidLossHook
from .loss_by_timestep_hook import LossByTimestepHook
from .preemption_hook import PreemptionHook
from .report_hook import ReportHook
from .runtime_info_hook import BufferedRuntimeInfoHook
from .sample_grid_hook import SampleGridHook
from .sample_metric_hook import FIDHook, FVDHook, SampleMetricHook
from .throughput_hook import ThroughputHook

__all__ = [
    'BufferedRuntimeInfoHook',
    'CheckpointHook',
    'DelayedClipHook',
    'FIDHook',
    'FVDHook',
    'InvalidLossHook',
    'LossByTimestepHook',
    'PreemptionHook',
    'ReportHook',
    'SampleGridHook',
    'SampleMetricHook',
    'ThroughputHook',
]

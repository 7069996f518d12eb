"""What plugs into MMEngine: runner, loop, averages, hooks."""

from .ema import ForeachEMA
from .invalid_loss_hook import InvalidLossHook
from .loops import SeekableTrainLoop
from .preemption_hook import PreemptionHook
from .report_hook import ReportHook
from .runner import DiffusionRunner
from .sample_grid_hook import SampleGridHook
from .throughput_hook import ThroughputHook

__all__ = [
    'DiffusionRunner',
    'ForeachEMA',
    'InvalidLossHook',
    'PreemptionHook',
    'ReportHook',
    'SampleGridHook',
    'SeekableTrainLoop',
    'ThroughputHook',
]

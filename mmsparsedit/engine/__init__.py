"""What plugs into MMEngine: runner, loop, averages, hooks."""

from .delayed_clip_hook import DelayedClipHook
from .ema import ForeachEMA
from .invalid_loss_hook import InvalidLossHook
from .loops import SeekableTrainLoop
from .loss_hooks import BufferedRuntimeInfoHook, LossByTimestepHook
from .optim_wrappers import Bf16OptimWrapper, BufferedOptimWrapper
from .preemption_hook import PreemptionHook
from .report_hook import ReportHook
from .runner import DiffusionRunner
from .sample_grid_hook import SampleGridHook
from .sharding import FullyShardedModel
from .test_loop import StoredTestLoop
from .throughput_hook import ThroughputHook

__all__ = [
    'Bf16OptimWrapper',
    'BufferedOptimWrapper',
    'BufferedRuntimeInfoHook',
    'DelayedClipHook',
    'DiffusionRunner',
    'ForeachEMA',
    'FullyShardedModel',
    'InvalidLossHook',
    'LossByTimestepHook',
    'PreemptionHook',
    'ReportHook',
    'SampleGridHook',
    'SeekableTrainLoop',
    'StoredTestLoop',
    'ThroughputHook',
]

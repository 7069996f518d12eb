"""What plugs into MMEngine: runner, loops, averages, optimizer wrappers, sharding, hooks."""

from .ema import ForeachEMA, averaged_weights
from .hooks import (
    BufferedRuntimeInfoHook,
    DelayedClipHook,
    FIDHook,
    FVDHook,
    InvalidLossHook,
    LossByTimestepHook,
    PreemptionHook,
    ReportHook,
    SampleGridHook,
    SampleMetricHook,
    ThroughputHook,
)
from .loops import SeekableTrainLoop, StoredTestLoop
from .optim_wrappers import Bf16OptimWrapper, BufferedOptimWrapper
from .runner import DiffusionRunner
from .sharding import FullyShardedModel

__all__ = [
    'Bf16OptimWrapper',
    'BufferedOptimWrapper',
    'BufferedRuntimeInfoHook',
    'DelayedClipHook',
    'DiffusionRunner',
    'FIDHook',
    'FVDHook',
    'ForeachEMA',
    'FullyShardedModel',
    'InvalidLossHook',
    'LossByTimestepHook',
    'PreemptionHook',
    'ReportHook',
    'SampleGridHook',
    'SampleMetricHook',
    'SeekableTrainLoop',
    'StoredTestLoop',
    'ThroughputHook',
    'averaged_weights',
]

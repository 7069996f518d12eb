"""What plugs into MMEngine: runner, loops, averages, optimizer wrappers, sharding, hooks."""

from . import hooks, loops
from .ema import ForeachEMA, averaged_weights
from .hooks import *  # noqa: F403
from .loops import *  # noqa: F403
from .optim_wrappers import Bf16OptimWrapper, BufferedOptimWrapper
from .replicas import ReplicatedModel
from .runner import DiffusionRunner
from .sharding import FullyShardedModel

__all__ = [
    'Bf16OptimWrapper',
    'BufferedOptimWrapper',
    'DiffusionRunner',
    'ForeachEMA',
    'FullyShardedModel',
    'ReplicatedModel',
    'averaged_weights',
    *hooks.__all__,
    *loops.__all__,
]

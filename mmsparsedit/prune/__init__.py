"""Pruning rate over timesteps (SparseDiT, Eq. 5)."""

from .elastic import ElasticPruneScheduler
from .schedule import Stage, TimestepPruneScheduler

__all__ = ['ElasticPruneScheduler', 'Stage', 'TimestepPruneScheduler']

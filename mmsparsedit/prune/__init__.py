"""Pruning rate over timesteps (SparseDiT, Eq. 5)."""

from .schedule import Stage, TimestepPruneScheduler

__all__ = ['Stage', 'TimestepPruneScheduler']

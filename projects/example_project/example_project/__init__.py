"""A downstream package: its modules register when a config imports it."""

from .blocks import MaxPoolingBlock
from .schedules import CosinePruneScheduler

__all__ = ['CosinePruneScheduler', 'MaxPoolingBlock']

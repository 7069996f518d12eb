"""A prune schedule of our own: the rate follows a cosine of time."""

import math

from mmsparsedit.prune import TimestepPruneScheduler
from mmsparsedit.registry import TASK_UTILS


@TASK_UTILS.register_module()
class CosinePruneScheduler(TimestepPruneScheduler):
    """r(t) = r_min + (r_max - r_min) (1 - cos(pi t / T)) / 2, cut into the same stages."""

    def rate_at(self, t: float) -> float:
        share = (1 - math.cos(math.pi * t / self.num_timesteps)) / 2
        return self.r_min + (self.r_max - self.r_min) * share

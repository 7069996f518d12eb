# digits.py in MMEngine's other style: bases are imported and types are classes, which an editor
# follows. Its bases are files without `_base_`; no row of the paper.
from mmengine.config import read_base

from mmsparsedit.engine import (
    BufferedOptimWrapper,
    DiffusionRunner,
    ForeachEMA,
    SampledValLoop,
    SeekableTrainLoop,
)
from mmsparsedit.models import DiffusionGenerator, SparseDiT
from mmsparsedit.nn import SDTM, PoolingFormerBlock
from mmsparsedit.prune import TimestepPruneScheduler

with read_base():
    from .._base_.datasets.digits import *  # noqa: F403
    from .._base_.datasets.digits import train_dataloader
    from .._base_.default_runtime import *  # noqa: F403
    from .._base_.default_runtime import default_hooks
    from .._base_.models.digits import model
    from .._base_.schedules.digits import *  # noqa: F403
    from .._base_.schedules.digits import optim_wrapper, train_cfg

runner_type = DiffusionRunner
train_cfg.update(type=SeekableTrainLoop)
val_cfg = dict(type=SampledValLoop, num_steps=15)
optim_wrapper.update(type=BufferedOptimWrapper)
optim_wrapper.optimizer.update(lr=8e-3)
train_dataloader.update(batch_size=24)

model.update(
    type=DiffusionGenerator,
    prune=dict(
        type=TimestepPruneScheduler,
        r_min=0.44,
        r_max=0.75,
        token_grid=(8, 8),
        num_timesteps=1000,
        num_stages=4,
        per_rank=False,
    ),
)
model.network.update(
    type=SparseDiT,
    num_bottom=1,
    num_sdtm=1,
    num_top=1,
    bottom_block=dict(type=PoolingFormerBlock),
    sdtm=dict(type=SDTM, block_counts=(1, 3, 1, 1)),
    reinject_pos_embed=True,
    upsample='nearest',
)

default_hooks.checkpoint.update(interval=500)
default_hooks.ema.update(ema_type=ForeachEMA, momentum=0.01)
default_hooks.sample_grid.update(interval=500, num_samples=50, columns=10)

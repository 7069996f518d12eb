"""How far each process of a training is, told to the others for their errors."""

import re
import time

from mmsparsedit.utils.files import first_line

# how collectives of gloo and NCCL say that another process is gone or does not answer
LOST = re.compile('timed? ?out|connection (closed|reset)', re.IGNORECASE)
KEY = 'mmsparsedit/iteration_of_rank_{}'
WAITED = 'mmsparsedit/rank_{}_waited'
# seconds in which those that waited for the same process say so
ROLL_CALL = 2


def beat(runner) -> None:
    """Tell the others the iteration of this process."""
    _store().set(KEY.format(runner.rank), str(runner.iter))


def who_was_waited_for(runner, error: RuntimeError) -> str:
    """Which processes did not say that they too waited, or are behind by what each said last."""
    store = _store()
    store.set(WAITED.format(runner.rank), '1')
    time.sleep(ROLL_CALL)
    said, silent = {}, []
    for rank in range(runner.world_size):
        key = KEY.format(rank)
        said[rank] = int(store.get(key)) if store.check([key]) else 0
        if not store.check([WAITED.format(rank)]):
            silent.append(rank)
    least, most = min(said[rank] for rank in silent or said), max(said.values())
    silent = silent or [rank for rank, iteration in said.items() if iteration == least]
    behind = ', '.join(map(str, silent))
    return (
        f'rank {runner.rank} lost the other processes at iteration {runner.iter} '
        f'({first_line(error)}). Rank {behind} was last heard of at iteration {least}, the others '
        f'at {most}: look at its log and its machine, then go on with --resume. '
        'env_cfg.dist_cfg.timeout says how many seconds a process waits.'
    )


def _store():
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()

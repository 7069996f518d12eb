"""The three exchanges between processes that the statistics need, on tensors, not on pickles."""

import torch
import torch.distributed as dist
from torch import Tensor

# rows of a gathered tensor sent at once: 4096 x 2048 float32 values are 32 MiB
GATHER_ROWS = 4096


def is_distributed() -> bool:
    """Whether a process group of more than one process is there."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def communication_device() -> torch.device:
    """Where a tensor must be to be sent: the current GPU under NCCL, else the CPU."""
    if dist.get_backend() == 'nccl':
        return torch.device('cuda', torch.cuda.current_device())
    return torch.device('cpu')


def all_reduce_(tensor: Tensor, op: str = 'sum') -> Tensor:
    """Reduce a tensor over all processes in place; ``op`` is 'sum' or 'max'."""
    if not is_distributed():
        return tensor
    sent = tensor.to(communication_device())
    dist.all_reduce(sent, op={'sum': dist.ReduceOp.SUM, 'max': dist.ReduceOp.MAX}[op])
    if sent is not tensor:
        tensor.copy_(sent)
    return tensor


def gather_rows(rows: Tensor, rows_at_once: int = GATHER_ROWS) -> Tensor | None:
    """Rows (N_r, ...) of all processes, in rank order, on the CPU of rank 0; None elsewhere.

    Sent in blocks, so that no process but the first holds more than a block of foreign rows. All
    processes must call it with the same dtype, number of axes and, unless they have no rows, the
    same shape behind the first axis.
    """
    rows = rows.cpu()
    if not is_distributed():
        return rows
    if rows.ndim > 1:
        shape = all_reduce_(torch.tensor(rows.shape[1:]), 'max')
        rows = rows.reshape(len(rows), *shape.tolist())
    rank, world = dist.get_rank(), dist.get_world_size()
    counts = torch.zeros(world, dtype=torch.int64)
    counts[rank] = len(rows)
    all_reduce_(counts)
    device = communication_device()
    kept = [rows] if rank == 0 else []
    for source in range(1, world):
        for start in range(0, int(counts[source]), rows_at_once):
            count = min(rows_at_once, int(counts[source]) - start)
            if rank == source:
                block = rows[start : start + count].to(device).contiguous()
            else:
                block = torch.empty(count, *rows.shape[1:], dtype=rows.dtype, device=device)
            dist.broadcast(block, src=source)
            if rank == 0:
                kept.append(block.cpu())
    return torch.cat(kept) if rank == 0 else None

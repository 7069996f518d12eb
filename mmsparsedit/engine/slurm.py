"""Processes that ``srun`` started, as torch.distributed names them."""

import subprocess
from collections.abc import Mapping

FIRST_PORT, PORTS = 20000, 10000  # below the range of ports that Linux gives to clients


def slurm_ranks(environ: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT of a task of a Slurm step.

    MMEngine sets these itself, for NCCL alone. The port follows the job, so that two jobs of one
    machine do not meet; ``MASTER_ADDR`` and ``MASTER_PORT`` of the environment come first.

    Raises:
        ValueError: not started by ``srun``, or a node list that ``scontrol`` does not know.
    """
    needed = ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NODELIST')
    missing = [name for name in needed if name not in environ]
    if missing:
        raise ValueError(
            f"launcher 'slurm': {', '.join(missing)} not set: start with srun "
            '(tools/slurm_train.sh), or use torchrun (tools/dist_train.sh).'
        )
    job = int(environ.get('SLURM_JOB_ID', 0))
    return dict(
        RANK=environ['SLURM_PROCID'],
        WORLD_SIZE=environ['SLURM_NTASKS'],
        LOCAL_RANK=environ['SLURM_LOCALID'],
        MASTER_ADDR=environ.get('MASTER_ADDR') or _first_host(environ['SLURM_NODELIST']),
        MASTER_PORT=environ.get('MASTER_PORT') or str(FIRST_PORT + job % PORTS),
    )


def _first_host(nodes: str) -> str:
    command = ['scontrol', 'show', 'hostnames', nodes]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f'{" ".join(command)} failed ({error}): set MASTER_ADDR to the first machine'
        ) from error
    return found[0]

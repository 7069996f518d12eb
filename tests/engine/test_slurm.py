"""Slurm's way of starting processes; srun and scontrol are played by scripts of this file."""

import subprocess

import pytest
import torch
from ranks import run_ranks
from survival import difference

from mmsparsedit.engine.slurm import slurm_ranks

from runs import ROOT, SPARSE, TINY, tool

STEP = dict(SLURM_PROCID='3', SLURM_NTASKS='16', SLURM_LOCALID='1', SLURM_NODELIST='node[7-8]')
SRUN = """#!/usr/bin/env bash
for argument; do
    case $argument in
        --ntasks=*) tasks=${argument#*=}; shift ;;
        -p) shift 2 ;;
        -*) shift ;;
        python) break ;;
    esac
done
shift
export SLURM_NTASKS=$tasks SLURM_NODELIST=node[7-8] SLURM_JOB_ID=$PPID
for ((rank = 0; rank < tasks; rank++)); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$PYTHON" "$@" & pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit; done
"""
SCONTROL = '#!/usr/bin/env bash\n[ "$*" = "show hostnames node[7-8]" ] && echo 127.0.0.1 node8\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=':')
    for name in ('MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)


def test_the_ranks_of_a_step(slurm):
    ranks = slurm_ranks(STEP | dict(SLURM_JOB_ID='12345'))
    assert ranks == dict(
        RANK='3', WORLD_SIZE='16', LOCAL_RANK='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='22345'
    )
    given = dict(MASTER_ADDR='head', MASTER_PORT='1')
    assert slurm_ranks(STEP | given) == ranks | given


def test_what_is_missing_is_named(slurm):
    with pytest.raises(ValueError, match='SLURM_NTASKS not set: start with srun'):
        slurm_ranks({k: v for k, v in STEP.items() if k != 'SLURM_NTASKS'})
    with pytest.raises(ValueError, match='set MASTER_ADDR to the first machine'):
        slurm_ranks(STEP | dict(SLURM_NODELIST='unknown'))


@pytest.mark.slow(20)
def test_srun_trains_as_torchrun_does(slurm, tmp_path):
    options = ['--cfg-options', *TINY, 'train_cfg.max_iters=4', 'env_cfg.dist_cfg.timeout=60']
    script = ['tools/slurm_train.sh', 'debug', 'digits', SPARSE, str(tmp_path / 'srun'), *options]
    given = tool(env=dict(GPUS='2', GPUS_PER_NODE='2')) | dict(args=['bash', *script])
    started = subprocess.run(**given, capture_output=True, timeout=300)
    assert started.returncode == 0, started.stderr
    codes, printed = run_ranks(
        ROOT / 'tools/train.py', SPARSE, '--work-dir', tmp_path / 'ranks', '--launcher', 'pytorch',
        *options, folder=tmp_path,
    )  # fmt: skip
    assert codes == [0, 0], printed
    ours, theirs = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=True) for name in ('srun', 'ranks')
    )
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert difference(ours[part], theirs[part]) is None

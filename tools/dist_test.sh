#!/usr/bin/env bash
# Sample and measure on several processes of this machine, or of several machines:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON. Without a GPU the processes run on the CPU.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# processes that share the cores without dividing them slow one another down
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    CORES=$(getconf _NPROCESSORS_ONLN)
    export OMP_NUM_THREADS=$((CORES / GPUS > 0 ? CORES / GPUS : 1))
fi

exec "${PYTHON:-python}" -m mmsparsedit.apis.torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"

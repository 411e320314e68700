#!/usr/bin/env bash
# Trains with SLURM, a process on each GPU. The current folder, on a disk that all nodes share, gets the results.
#
#   bash scripts/slurm_train.sh 8 FILE                               # one node with 8 GPUs
#   PARTITION=gpu bash scripts/slurm_train.sh 16 FILE --auto_resume  # two nodes with 8 GPUs each
#
# GPUS_PER_NODE (8), CPUS_PER_TASK (5), PARTITION, JOB_NAME and SRUN_ARGS ("--time=24:00:00 --exclude=node7") say how;
# MASTER_PORT is the port where the processes meet. A job that SLURM requeues goes on from its newest state. PYTHON
# names the interpreter.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: bash $0 GPUS FILE [options of 'basicsr train', such as --auto_resume]" >&2
    exit 2
fi
gpus=$1 file=$2
shift 2

python=${PYTHON:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}
command -v "$python" >/dev/null || python=python3

per_node=${GPUS_PER_NODE:-8}
per_node=$((gpus < per_node ? gpus : per_node))
# two jobs may share a node
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 10000))}

# shellcheck disable=SC2086  # SRUN_ARGS are several words
exec srun --job-name "${JOB_NAME:-$(basename "$file" .yml)}" ${PARTITION:+--partition "$PARTITION"} \
    --ntasks "$gpus" --ntasks-per-node "$per_node" --gres "gpu:$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} "$python" -u -m lorair_arch train -opt "$file" --launcher slurm "$@"

#!/usr/bin/env bash
# Trains with a process on each GPU, or with as many as given on CPUs. Results go under the current folder.
#
#   bash scripts/dist_train.sh 8 FILE                     # 8 processes on this machine
#   MAX_RESTARTS=3 bash scripts/dist_train.sh 8 FILE      # when one fails, all go on from the newest state, 3 times
#
# Several nodes, with the current folder on a disk that they share; on each of them:
#   NNODES=2 RDZV_ENDPOINT=node1:29400 bash scripts/dist_train.sh 8 FILE
# NNODES=1:4 lets nodes come and go; RDZV_ID tells trainings with the same endpoint apart; LOCAL_ADDR is the address of
# this node if the others do not know its host name. PYTHON names the interpreter.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: bash $0 GPUS FILE [options of 'basicsr train', such as --auto_resume]" >&2
    exit 2
fi
gpus=$1 file=$2
shift 2

python=${PYTHON:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}
command -v "$python" >/dev/null || python=python3

torchrun=("$python" -m torch.distributed.run --nproc-per-node "$gpus" --max-restarts "${MAX_RESTARTS:-0}")
if [[ -n ${NNODES:-} ]]; then
    : "${RDZV_ENDPOINT:?error: give HOST:PORT of one of the nodes, the same on all, such as node1:29400}"
    torchrun+=(--nnodes "$NNODES" --rdzv-backend c10d --rdzv-endpoint "$RDZV_ENDPOINT" --rdzv-id "${RDZV_ID:-lorair}")
    [[ -z ${LOCAL_ADDR:-} ]] || torchrun+=(--local-addr "$LOCAL_ADDR")
else
    torchrun+=(--standalone)
fi
exec "${torchrun[@]}" -m lorair_arch train -opt "$file" --launcher pytorch "$@"

#!/usr/bin/env bash
# Tests with a process on each GPU, or with as many as given on CPUs; each restores its share of the images.
# Results go under the current folder. PYTHON names the interpreter.
set -euo pipefail
if [[ $# -lt 2 ]]; then
    echo "usage: bash $0 GPUS FILE [options of 'basicsr test', such as --force_yml val:save_img=false]" >&2
    exit 2
fi
gpus=$1 file=$2
shift 2

python=${PYTHON:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}
command -v "$python" >/dev/null || python=python3

exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" \
    -m lorair_arch test -opt "$file" --launcher pytorch "$@"

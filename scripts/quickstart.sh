#!/usr/bin/env bash
# LoRA-IR's whole job on real photographs, in minutes: three stages of training, a test, a report, a restored image.
# Results: results/quickstart. With --smoke a minute's trial of every step, in a temporary folder.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
step() { printf '\n== %s\n' "$*"; }

cd "$repo"
short=()
if [[ ${1:-} == --smoke ]]; then
    cd "$(mktemp -d)"
    trap "rm -rf '$PWD'" EXIT
    short=(--force_yml train:total_iter=10 val:val_freq=10 logger:print_freq=5 logger:save_checkpoint_freq=10)
elif [[ $# -gt 0 ]]; then
    echo "usage: bash scripts/quickstart.sh [--smoke]" >&2
    exit 2
fi

# threads give way to other programs, as in lorair_arch/cli
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-50000}
step "Environment"
bash "$repo/scripts/setup_env.sh"
PATH="$repo/.venv/bin:$PATH"
started=$(date +%s)

step "Data: photographs with noise, rain, haze and in low light"
python "$repo/scripts/data_preparation/quickstart_data.py"

step "Training: router, restorer, experts"
basicsr train -opt "$repo"/options/*.yml ${short[@]+"${short[@]}"}

step "Test on photographs that training never saw"
basicsr test -opt "$repo/options/test/quickstart.yml"

step "Report"
python "$repo/scripts/report.py" "$repo/options/test/quickstart.yml" --started "$started"

step "Restoring a photograph"
python - <<'PYTHON'
from pathlib import Path

from lorair_arch.data.stores import open_store

photos = open_store('datasets/quickstart/test/rain_lq.lmdb')
with photos.opened(photos.keys[0]) as content:
    Path('results/quickstart/rainy.png').write_bytes(content)
PYTHON
lorair restore results/quickstart/rainy.png -o results/quickstart/restored.png --weights results/quickstart/weights

step "Done in $(($(date +%s) - started)) seconds: see results/quickstart"

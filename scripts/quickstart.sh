#!/usr/bin/env bash
# LoRA-IR's whole job on real photographs, in minutes: lorair-tiny restores some; then it is trained further in three
# stages and tested. Results: results/photos, results/quickstart. With --smoke a minute's trial of every step, in a
# temporary folder.
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

step "Restoring photographs with lorair-tiny, which comes with the package"
lorair restore datasets/quickstart/photos -o results/photos --overwrite --report results/photos/report.html
python "$repo/scripts/before_after.py" datasets/quickstart/photos results/photos -o results/photos/sheet.jpg --overwrite

step "Training: router, restorer, experts"
basicsr train -opt "$repo"/options/*.yml ${short[@]+"${short[@]}"}

step "Test on photographs that training never saw"
basicsr test -opt "$repo/options/test/quickstart.yml"

step "Report"
python "$repo/scripts/report.py" "$repo/options/test/quickstart.yml" --started "$started"

step "Restoring a photograph with what was trained"
lorair restore datasets/quickstart/photos/rain.png -o results/quickstart/restored.png --overwrite \
    --weights results/quickstart/weights

step "Done in $(($(date +%s) - started)) seconds: see results/photos, results/quickstart"

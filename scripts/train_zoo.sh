#!/usr/bin/env bash
# Makes the weights of the zoo, lorair-tiny, by their recipe (options/zoo): data, router, restorer, experts, and packs
# them into half precision. Many hours on a few CPU cores; started again it continues where it was stopped.
#
#   bash scripts/train_zoo.sh --train PHOTOS --val OTHER_PHOTOS [--out FOLDER] [--set KEY:KEY=VALUE ...]
#   bash scripts/train_zoo.sh --smoke        # a trial of every step in minutes, on photographs of scikit-image
#
# Everything is written to the current folder (datasets/zoo, experiments, zoo); --out says where the weights go, --set
# changes options of all three trainings. A GPU wants more images at once, and more processes that read them:
#   --set datasets:train:batch_size_per_gpu=48 datasets:train:num_worker_per_gpu=12
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n '5,6s/^# *//p' "$0" >&2; exit 2; }
step() { printf '\n== %s\n' "$*"; }

train= val= out=zoo/lorair-tiny smoke= changes=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --train) train=${2:?--train needs a folder}; shift 2 ;;
        --val) val=${2:?--val needs a folder}; shift 2 ;;
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        --set)
            shift
            [[ ${1:-} == *=* ]] || usage
            while [[ ${1:-} == *=* ]]; do changes+=("$1"); shift; done ;;
        --smoke)
            smoke=yes
            changes+=(datasets:train:batch_size_per_gpu=2 train:total_iter=2 val:val_freq=1000 logger:print_freq=1 logger:save_checkpoint_freq=2)
            shift ;;
        *) usage ;;
    esac
done
[[ -n $smoke || -n $train && -n $val ]] || usage
bash "$repo/scripts/setup_env.sh"
PATH="$repo/.venv/bin:$PATH"
if [[ -n $smoke ]]; then
    cd "$(mktemp -d)"
    trap "rm -rf '$PWD'" EXIT
    python - <<'PYTHON'
from pathlib import Path

import skimage
from PIL import Image

photos = Path(skimage.__file__).parent / 'data'
for split, names in {'train': ('coffee.png', 'motorcycle_left.png'), 'val': ('rocket.jpg',)}.items():
    Path(split).mkdir()
    for name in names:
        photo = Image.open(photos / name).convert('RGB')
        photo.thumbnail((520, 520) if split == 'train' else (300, 300))  # crops of 128 pixels fit into half of it
        photo.save(Path(split) / name)
PYTHON
    train=train val=val
fi

step "Data"
[[ -e datasets/zoo/val_few.txt ]] || python "$repo/scripts/data_preparation/zoo_data.py" --train "$train" --val "$val"

# Large features in huge pages, kept from step to step: training on a CPU is faster by a tenth (scripts/benchmark).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8000000000}
step "Training: router, restorer, experts"
basicsr train -opt "$repo"/options/zoo/*.yml --auto_resume ${changes[@]+--force_yml "${changes[@]}"}

step "Packing into $out"
models=experiments/zoo_tiny
lorair convert ${models}_1_router/models/net_router_latest.pth ${models}_2_pretrain/models/net_g_latest.pth \
    ${models}_3_finetune/models/net_g_latest.pth "$out/model.safetensors" \
    --half --degradations clean noise rain haze blur lowlight jpeg
du -b "$out/model.safetensors"

#!/usr/bin/env bash
# What cached priors change: trains the quickstart's restorer and experts again, without the router, and tests them, to be
# compared with the report of scripts/quickstart.sh, which must have run before.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
models=experiments/quickstart_cached
priors=experiments/quickstart_priors.safetensors
if [[ ! -e experiments/quickstart_3_finetune/models/net_g_latest.pth ]]; then
    echo "error: there is no experiments/quickstart_3_finetune; run scripts/quickstart.sh first" >&2
    exit 1
fi

lorair data cache-priors -opt options/2_pretrain.yml -o "$priors"
cached=(train:prior=cached "path:prior_cache=$priors")
basicsr train -opt options/2_pretrain.yml --force_yml name=quickstart_cached_2_pretrain "${cached[@]}"
basicsr train -opt options/3_finetune.yml --force_yml name=quickstart_cached_3_finetune "${cached[@]}" \
    "path:pretrain_network_g=${models}_2_pretrain/models/net_g_latest.pth"
basicsr test -opt options/test/quickstart.yml --force_yml name=quickstart_cached \
    "path:pretrain_network_g=${models}_2_pretrain/models/net_g_latest.pth" \
    "path:pretrain_network_experts=${models}_3_finetune/models/net_g_latest.pth"

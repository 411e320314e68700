#!/usr/bin/env bash
# Sets up the environment and runs the tests; arguments go to pytest, such as: bash scripts/test.sh tests/test_cli.py
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"

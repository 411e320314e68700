#!/usr/bin/env bash
# Makes .venv in the repository, with exactly the versions of constraints.txt; at once when it is there already. In
# .venv/demo is Gradio, which wants an older Pillow; all else it has from .venv.
#
# PYTHON=python3.12 chooses the interpreter. pip's own settings choose the build of PyTorch, such as
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for the small one without CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/complete
wanted="$PWD $(cat constraints*.txt setup.py scripts/setup_env.sh | cksum)"
if [[ -x .venv/bin/python && -f $stamp && "$(cat $stamp)" == "$wanted" ]]; then
    exit 0
fi

fits='import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))'
python=
for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
    if "$candidate" -c "$fits" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    echo "error: found no Python 3.10 to 3.12; install one, or name it: PYTHON=/path/to/python bash $0" >&2
    exit 1
fi

install() {
    local pip=(.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt)
    # torch first: BasicSR asks for it while it is built, and must take this one, not gigabytes of another
    "$python" -m venv --clear .venv &&
        "${pip[@]}" torch setuptools wheel cython numpy &&
        "${pip[@]}" torchvision &&
        "${pip[@]}" --no-build-isolation -e '.[dev,heif,jxl,lpips,onnx,ray,spandrel]' &&
        .venv/bin/basicsr --help &&
        install_demo
}

install_demo() {
    # without a pip of its own: that of .venv is there like all the rest
    "$python" -m venv --without-pip .venv/demo &&
        echo "import site; site.addsitedir('$(packages .venv)')" >"$(packages .venv/demo)/venv.pth" &&
        .venv/demo/bin/python -m pip install --disable-pip-version-check -c constraints-demo.txt gradio
}

packages() {
    "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

echo "Installing into .venv (once; a few minutes) ..."
log=$(mktemp)
if ! install >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    echo "error: the installation failed, see above; the whole log is in $log" >&2
    exit 1
fi
rm "$log"
echo "$wanted" >$stamp

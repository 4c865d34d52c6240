#!/bin/sh
# Make a virtual environment with everything: `sh scripts/install.sh FOLDER`, or with a built wheel and what it needs to run:
# `sh scripts/install.sh FOLDER WHEEL`. Needs Python 3.11 or later with venv and pip.
# With an NVIDIA GPU it installs vLLM for CUDA, else vLLM for CPUs.
set -eu
venv=$1
here=$(dirname "$0")

for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=""
done
[ -n "$python" ] || { echo "error: no Python 3.11 or later found; install one or set PYTHON=/path/to/python" >&2; exit 1; }

# uv does not read pip's settings: carry over those that people set.
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="$PIP_EXTRA_INDEX_URL"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    extra=cuda backend=""
elif [ -n "${PIP_FIND_LINKS:-}" ] && ls "$PIP_FIND_LINKS" 2>/dev/null | grep -q '^torch-.*cpu'; then
    extra=cpu backend=""                     # a CPU build of torch lies at hand
else
    extra=cpu backend="--torch-backend cpu"  # else it comes from PyTorch's own index
fi

echo "installing into $venv ($extra, $("$python" --version))"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'
# shellcheck disable=SC2086
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" $backend --override "$here/overrides.txt" \
    ${2:+"$2[$extra]"} ${2:--e "$here/..[$extra,dev]"}
"$venv/bin/python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'

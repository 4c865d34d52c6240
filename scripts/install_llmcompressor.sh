#!/bin/sh
# Make the environment of the quantization backend llm-compressor: `sh scripts/install_llmcompressor.sh FOLDER UV PYTHON`.
set -eu
venv=$1 uv=$2 python=$3
here=$(dirname "$0")

# uv does not read pip's settings: carry over those that people set.
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="$PIP_FIND_LINKS"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="$PIP_EXTRA_INDEX_URL"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="$PIP_CERT"

# The build of torch, CPU or CUDA, is that of the project's own environment.
build=$("$python" -c 'import torch; print(torch.__version__)')
case $build in
    *+cpu) backend="--torch-backend cpu"; [ -n "${PIP_FIND_LINKS:-}" ] && backend="" ;;
    *) backend="" ;;
esac
"$uv" venv --quiet --clear --python "$python" "$venv"
# shellcheck disable=SC2086
"$uv" pip install --quiet --python "$venv/bin/python" $backend --override "$here/overrides.txt" -r "$here/llmcompressor.txt"
"$venv/bin/python" -c 'import llmcompressor, torch; print("llm-compressor", llmcompressor.__version__, "torch", torch.__version__)'

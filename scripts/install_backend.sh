#!/bin/sh
# Make the environment of a quantization backend: `sh scripts/install_backend.sh NAME FOLDER UV PYTHON`.
# What NAME.txt beside this lists first is the backend.
set -eu
name=$1 venv=$2 uv=$3 python=$4
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
"$uv" pip install --quiet --python "$venv/bin/python" $backend --override "$here/overrides.txt" -r "$here/$name.txt"
module=$(sed -n '/^[a-z]/{s/=.*//;s/-/_/g;p;q;}' "$here/$name.txt")
"$venv/bin/python" -c "import $module, torch; print('$module', $module.__version__, 'torch', torch.__version__)"

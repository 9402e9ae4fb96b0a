#!/bin/sh
# Start the service from this folder; nothing is fetched. The first start installs it.
# PYTHON: the interpreter (python3.11); RAREALERT_VENV: where to install (.venv beside this file).
# Options go to `rarealert serve`, such as --port 8080.
set -eu
cd -- "$(dirname -- "$0")"
bundle=$(pwd)
venv=${RAREALERT_VENV:-$bundle/.venv}

if [ -f "$venv/.installed" ]; then
    # the wheels are no longer read; the base model's bytes are compared as it is loaded, with
    # what base/*/carried.json says of them
    grep -v -e '  wheels/' -e '  base/.*\.safetensors$' SHA256SUMS | sha256sum --check --quiet -
else
    sha256sum --check --quiet SHA256SUMS
    "${PYTHON:-python3.11}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-index --find-links wheels 'rarealert[screen]'
    touch "$venv/.installed"
fi

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 RAREALERT_BASE_MODELS="$bundle/base"
exec "$venv/bin/rarealert" serve --model model "$@"

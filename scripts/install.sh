#!/bin/sh
# Make the virtual environment $1 with the locked packages and this checkout (editable). It can be repeated safely.
# It uses uv if possible (much faster), otherwise pip, with the index settings of either.
set -eu
venv=$1
python="$venv/bin/python"
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
    base=$(scripts/find_python.sh)
    echo "Making $venv with $base"
    "$base" -m venv --clear "$venv"
fi

# uv does not read pip's settings, so pass it an index that is set only for pip.
index=$("$python" -m pip config list 2>/dev/null | sed -n "s/^[^=]*\.index-url='\(.*\)'$/\1/p" | tail -n 1)
if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
    UV_DEFAULT_INDEX=$index
    export UV_DEFAULT_INDEX
fi

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    "$python" -m pip install --quiet uv && uv="$venv/bin/uv" || echo "uv could not be installed; using pip."
fi

with_pip() {
    "$python" -m pip install --quiet -r requirements.lock && "$python" -m pip install --quiet --no-deps -e .
}

with_uv() {
    "$uv" pip install --quiet --compile-bytecode --python "$python" -r requirements.lock &&
        "$uv" pip install --quiet --python "$python" --no-deps -e .
}

echo "Installing the locked packages (the first time takes a few minutes: PyTorch is large)"
if [ -z "$uv" ] || ! with_uv; then
    [ -z "$uv" ] || echo "uv could not install them; trying pip."
    with_pip
fi

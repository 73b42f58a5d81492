#!/bin/sh
# Print the path of a Python >= 3.12 that can make virtual environments; if there is none, print one sentence and exit 1.
# Candidates are $PYTHON, the PATH, pyenv's versions, and the versions that uv has or can install. Each candidate is
# started, because a name on the PATH may be a pyenv shim without an installed version.
set -u

usable() {
    "$1" -c 'import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 12) or sys.maxsize < 2**32)' >/dev/null 2>&1
}

try() {
    candidate=$(command -v "$1" 2>/dev/null) || return 1
    usable "$candidate" || return 1
    "$candidate" -c 'import sys; print(sys.executable)'
    exit 0
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
    echo "PYTHON=$PYTHON is not a Python >= 3.12 with the modules venv and ensurepip." >&2
    exit 1
fi

for version in 3.13 3.12 3.14; do
    try "python$version"
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*; do
        try "$folder/bin/python"
    done
done
try python3
try python

if command -v uv >/dev/null 2>&1; then
    try "$(uv python find '>=3.12' 2>/dev/null)"
    uv python install 3.13 >&2 && try "$(uv python find 3.13 2>/dev/null)"
fi

echo "No Python >= 3.12 found on the PATH, in ~/.pyenv or through uv: install one (https://www.python.org/downloads, \
\`pyenv install 3.13\` or \`uv python install 3.13\`) or name it with make PYTHON=/path/to/python." >&2
exit 1

# Sourced by the other scripts: makes or takes the environment and installs the project into it.
#
#   CYCLESTYLE_VENV   the virtual environment; .venv in the project by default, made where it is missing
#
# Usage: source scripts/environment.sh [EXTRA]

export CYCLESTYLE_VENV="${CYCLESTYLE_VENV:-$PWD/.venv}"
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ ! -x "$CYCLESTYLE_VENV/bin/python" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "cyclestyle needs Python 3.11 or later as python3; found $(python3 --version 2>&1)" >&2
        exit 1
    }
    python3 -m venv "$CYCLESTYLE_VENV" || {
        echo "cannot make a virtual environment in $CYCLESTYLE_VENV; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
fi
echo "== Installing into $CYCLESTYLE_VENV (several GB the first time)"
"$CYCLESTYLE_VENV/bin/pip" install --quiet --editable ".${1:+[$1]}"
export PATH="$CYCLESTYLE_VENV/bin:$PATH"

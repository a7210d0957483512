#!/bin/sh
# make-venv.sh DIRECTORY: create a virtual environment, on a bare Debian as well.
#
# Debian's python3 comes without ensurepip, so `python3 -m venv` fails until python3-venv is installed.
set -eu
directory=$1
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null; then
    echo "ottla: no $python here; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "ottla: $("$python" --version) is too old; Ottla needs Python 3.11: make PYTHON=python3.11" >&2
    exit 1
fi
PYTHON=$python "$(dirname "$0")/debian-packages.sh" venv
echo "ottla: making $directory with $("$python" --version)"
"$python" -m venv "$directory"

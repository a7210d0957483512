#!/bin/sh
# examples-deps.sh NAME...: prepare examples, each in an environment of its own.
#
#   build/examples/NAME          a virtual environment with what examples/NAME/requirements.txt names
#   examples/NAME/node_modules   what examples/NAME/package.json names, if there is one
#   Debian packages              the groups below
#
# Nothing of it comes near the broker's own environment. PYTHON names an interpreter that has pip.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

debian_groups_of() {
    case $1 in
        messaging) echo node ;;
        activity) echo chromium ;;
        metrics) echo collectd ;;
        logs) echo rsyslog ;;
    esac
}

for name in "$@"; do
    folder=examples/$name
    # shellcheck disable=SC2046  # the groups are meant to be split
    scripts/debian-packages.sh $(debian_groups_of "$name")

    environment=build/examples/$name
    echo "ottla: installing what $folder needs into $environment"
    [ -x "$environment/bin/python" ] || "$python" -m venv --without-pip "$environment"
    "$python" -m pip --python "$environment/bin/python" --disable-pip-version-check --quiet \
        install --requirement "$folder/requirements.txt"

    if [ -f "$folder/package.json" ] && ! cmp -s "$folder/package.json" "$folder/node_modules/.installed"; then
        npm install --prefix "$folder" --no-package-lock --no-audit --no-fund --loglevel=error
        cp "$folder/package.json" "$folder/node_modules/.installed"
    fi
done

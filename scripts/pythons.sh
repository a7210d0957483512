#!/bin/sh
# pythons.sh [VERSION...]: run the tests of the embedded broker, and of what leans on Python's own insides (event loops,
# sockets, threads in virtual time), with each Python that is found.
#
#   build/pythons/VERSION   a virtual environment with Ottla and all extras, made anew if pyproject.toml is newer
#
# Without versions: those that Ottla supports. A version that is not on this machine is left out, and said so.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 3.11 3.12 3.13 3.14

# An interpreter of that version: on the PATH, or among pyenv's.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

tested=
failed=
for version in "$@"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "ottla: no Python $version on this machine: left out" >&2
        continue
    fi
    environment=build/pythons/$version
    if [ ! "$environment/.installed" -nt pyproject.toml ]; then
        echo "ottla: installing into $environment"
        "$python" -m venv "$environment"
        "$environment/bin/python" -m pip --disable-pip-version-check --quiet install --editable '.[all]' \
            'pytest>=8' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6' 'hypothesis>=6.100' 'aiokafka>=0.12' 'crc32c>=2.7' \
            'kafka-python>=2.1' 'trustme>=1.2'
        touch "$environment/.installed"
    fi
    echo "ottla: testing with $("$environment/bin/python" --version)"
    if "$environment/bin/python" -m pytest -p no:cacheprovider -n "${JOBS:-3}" \
        tests/unit/test_testing_*.py tests/unit/test_extras.py tests/unit/test_checksum.py tests/unit/test_records.py \
        tests/unit/test_log_append_read.py tests/unit/test_broker_produce.py tests/unit/test_broker_fetch.py \
        tests/unit/test_env_*.py tests/unit/test_metadata_stores.py tests/unit/test_metadata_etcd_channel.py \
        tests/unit/test_security_tls.py tests/unit/test_cli_local_secure.py tests/security/test_testing_security.py \
        tests/sim/test_sim_loop.py tests/sim/test_threads.py \
        tests/interop/test_aiokafka.py tests/interop/test_confluent.py; then
        tested="$tested $version"
    else
        failed="$failed $version"
    fi
done
echo "ottla: passed:${tested:- none}; failed:${failed:- none}"
[ -z "$failed" ] && [ -n "$tested" ]

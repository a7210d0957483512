#!/bin/sh
# interop-deps.sh: prepare the clients in other languages, and the servers, that the tests use.
#
#   kcat, etcd, jq  from Debian
#   Java            the JDK from Debian; kafka-clients and what it needs, as jars under build/java/libs;
#                   Kafka Connect and Debezium, as jars under build/java/connect
#   PostgreSQL      from Debian: what Debezium reads
#   Prometheus      from Debian, unpacked under build/prometheus and not installed: it would start as a service
#   Kerberos        from Debian: a KDC; python-gssapi, which PyPI has as sources only, is built
#   Node.js         from Debian; the packages that tests/interop/node/package.json names, beside it
#
# What is there already is left alone, so a second run takes no time. PYTHON names the interpreter to use.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

PYTHON=$python scripts/debian-packages.sh kcat jq java node etcd netns postgresql kerberos compiler prometheus

if ! "$python" -c 'import gssapi' 2>/dev/null; then
    echo 'ottla: building python-gssapi: 20 s of a processor, as it need not be fast'
    CFLAGS=-O0 "$python" -m pip --disable-pip-version-check --quiet install --editable '.[gssapi]'
fi

mkdir -p build
"$python" scripts/java_jars.py build/java/libs build/java/connect

node=tests/interop/node
if [ -f $node/package.json ] && ! cmp -s $node/package.json $node/node_modules/.installed; then
    echo "ottla: installing the packages of $node/package.json"
    npm install --prefix $node --no-package-lock --no-audit --no-fund --loglevel=error
    cp $node/package.json $node/node_modules/.installed
fi

#!/bin/sh
# debian-packages.sh GROUP...: install the Debian packages of the groups named, where they are missing.
#
# This is the one list of the Debian packages that the project uses. Nothing is asked, and apt-get is not
# touched when all that is needed is there, whoever installed it.
set -eu

# group  what tells that it is there                                   packages
packages_of() {
    case $1 in
        venv) echo python3-venv ;;                       # makes .venv (Debian splits it from python3)
        compiler) echo gcc libc6-dev python3-dev ;;      # make compiled, make wheel: a C compiler and Python.h
        kcat) echo kcat ;;                               # tests: librdkafka 2.0.2, a client of Debian's age
        java) echo default-jdk-headless ;;               # tests: the official Java client
        node) echo nodejs npm ca-certificates ;;         # tests: the clients from npm
        etcd) echo etcd-server etcd-client ;;            # tests: what a cluster keeps its metadata in
        postgresql) echo postgresql ;;                   # tests: what Debezium reads; they start their own
        netns) echo iproute2 ;;                          # tests: machines that can be cut off from each other
        rsyslog) echo rsyslog rsyslog-kafka bsdutils ;;  # examples: rsyslogd with omkafka, and logger
        chromium) echo chromium chromium-driver fonts-liberation ;;  # examples: a browser that clicks, and its driver
        collectd) echo collectd-core ;;                  # examples: collectd with write_kafka; starts no service
        *) echo "debian-packages.sh: no group named $1" >&2; exit 2 ;;
    esac
}

is_there() {
    case $1 in
        venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        compiler)
            command -v cc >/dev/null && "${PYTHON:-python3}" -c \
                'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
            ;;
        kcat) command -v kcat >/dev/null ;;
        java) command -v javac >/dev/null && command -v java >/dev/null ;;
        node) command -v node >/dev/null && command -v npm >/dev/null ;;
        etcd) command -v etcd >/dev/null && command -v etcdctl >/dev/null ;;
        netns) command -v ip >/dev/null ;;
        postgresql) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ;;
        chromium) command -v chromium >/dev/null && command -v chromedriver >/dev/null ;;
        collectd) ls /usr/sbin/collectd /usr/lib/collectd/write_kafka.so >/dev/null 2>&1 ;;
        rsyslog) command -v logger >/dev/null && ls /usr/sbin/rsyslogd /usr/lib/*/rsyslog/omkafka.so >/dev/null 2>&1 ;;
    esac
}

missing=
for group in "$@"; do
    packages=$(packages_of "$group")
    is_there "$group" || missing="$missing $packages"
done
[ -n "$missing" ] || exit 0

as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
if ! command -v apt-get >/dev/null || { [ -n "$as_root" ] && ! command -v sudo >/dev/null; }; then
    echo "ottla: these Debian packages, or what your system calls them, are missing:$missing" >&2
    echo "ottla: install them as root, for instance: apt-get install$missing" >&2
    exit 1
fi
echo "ottla: installing Debian packages:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086  # the list is meant to be split
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
for group in "$@"; do
    is_there "$group" || { echo "ottla: $group is still missing after installing:$missing" >&2; exit 1; }
done

#!/bin/sh
# debian-packages.sh GROUP...: install the Debian packages of the groups named, where they are missing.
#
# This is the one list of the Debian packages that the project uses. apt-get is not touched when all that is needed
# is there, whoever installed it. Else it says what is missing and what for, and asks in a terminal. Without one root
# goes on (a container, CI), and anybody else does with OTTLA_APT=1, by sudo.
set -eu

# group  what tells that it is there                                   packages
packages_of() {
    case $1 in
        venv) echo python3-venv ;;                       # makes .venv (Debian splits it from python3)
        compiler) echo gcc libc6-dev python3-dev ;;      # make compiled, make wheel: a C compiler and Python.h
        kcat) echo kcat ;;                               # tests: librdkafka 2.0.2, a client of Debian's age
        java) echo default-jdk-headless ;;               # tests: the official Java client
        node) echo nodejs npm ca-certificates ;;         # tests: the clients from npm
        jq) echo jq curl ;;                              # tests: what pages of the documentation use
        etcd) echo etcd-server etcd-client ;;            # tests: what a cluster keeps its metadata in
        postgresql) echo postgresql ;;                   # tests: what Debezium reads; they start their own
        kerberos) echo krb5-kdc krb5-admin-server libkrb5-dev ;;  # tests: a KDC of their own; python-gssapi is built
        netns) echo iproute2 ;;                          # tests: machines that can be cut off from each other
        rsyslog) echo rsyslog rsyslog-kafka bsdutils ;;  # examples: rsyslogd with omkafka, and logger
        chromium) echo chromium chromium-driver fonts-liberation ;;  # examples: a browser that clicks, and its driver
        collectd) echo collectd-core ;;                  # examples: collectd with write_kafka; starts no service
        prometheus) echo prometheus ;;                   # tests: promtool, and what scrapes nodes; unpacked only
        *) echo "debian-packages.sh: no group named $1" >&2; exit 2 ;;
    esac
}

purpose_of() {
    case $1 in
        venv) echo 'makes .venv' ;;
        compiler) echo 'compiles the hot path, and what pip builds' ;;
        kcat | java | node) echo 'tests: other clients of Kafka' ;;
        jq) echo 'tests: commands of the documentation' ;;
        etcd) echo 'what a cluster keeps its metadata in' ;;
        postgresql) echo 'tests: what Debezium reads' ;;
        kerberos) echo 'tests: logging in by Kerberos' ;;
        netns) echo 'tests: machines that are cut off from each other' ;;
        rsyslog | chromium | collectd) echo 'examples' ;;
        prometheus) echo 'tests: what reads metrics; unpacked in build/prometheus only' ;;
    esac
}

# Where the programs of a group are unpacked instead of installed: its package would start a service, and wants
# eleven others for the page that it shows. Beside the sources, whoever calls.
unpacked_in() {
    case $1 in
        prometheus) echo "$(dirname "$0")/../build/prometheus" ;;
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
        jq) command -v jq >/dev/null && command -v curl >/dev/null ;;
        node) command -v node >/dev/null && command -v npm >/dev/null ;;
        etcd) command -v etcd >/dev/null && command -v etcdctl >/dev/null ;;
        kerberos) PATH="$PATH:/usr/sbin" command -v krb5kdc kadmin.local kdb5_util krb5-config.mit >/dev/null ;;
        netns) command -v ip >/dev/null ;;
        postgresql) ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ;;
        chromium) command -v chromium >/dev/null && command -v chromedriver >/dev/null ;;
        collectd) ls /usr/sbin/collectd /usr/lib/collectd/write_kafka.so >/dev/null 2>&1 ;;
        prometheus)
            [ -e "$(unpacked_in prometheus)/promtool" ] ||
                { command -v prometheus >/dev/null && command -v promtool >/dev/null; }
            ;;
        rsyslog) command -v logger >/dev/null && ls /usr/sbin/rsyslogd /usr/lib/*/rsyslog/omkafka.so >/dev/null 2>&1 ;;
    esac
}

missing=
unpacked=
reasons=
for group in "$@"; do
    packages=$(packages_of "$group")
    if is_there "$group"; then
        continue
    fi
    reasons="$reasons
  $packages ($(purpose_of "$group"))"
    if [ -n "$(unpacked_in "$group")" ]; then
        unpacked="$unpacked $group"
    else
        missing="$missing $packages"
    fi
done
[ -n "$missing$unpacked" ] || exit 0

as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
if ! command -v apt-get >/dev/null || { [ -n "$as_root" ] && ! command -v sudo >/dev/null; }; then
    echo "ottla: these Debian packages, or what your system calls them, are missing:$missing$unpacked" >&2
    [ -z "$missing" ] || echo "ottla: install them as root, for instance: apt-get install$missing" >&2
    for group in $unpacked; do
        echo "ottla: of $group the programs are to be in $(unpacked_in "$group")" >&2
    done
    exit 1
fi
how="${as_root:+$as_root }apt-get install$missing$unpacked"
echo "ottla: Debian packages are missing:$reasons" >&2
if [ "${OTTLA_APT:-}" != 1 ]; then
    if [ -t 0 ]; then
        printf 'ottla: %s? [y/N] ' "$how" >&2
        read -r answer || answer=
        case $answer in
            [yY] | [yY]es) ;;
            *) echo "ottla: nothing was installed" >&2; exit 1 ;;
        esac
    elif [ -n "$as_root" ]; then
        echo "ottla: OTTLA_APT=1 has them installed by: $how" >&2
        exit 1
    fi
fi
echo "ottla: $how"
$as_root apt-get update -qq
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # the list is meant to be split
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi
for group in $unpacked; do
    folder=$(unpacked_in "$group")
    rm -rf "$folder/package"
    mkdir -p "$folder/package"
    # Whose folder it is, apt's own user need not be able to write there.
    # shellcheck disable=SC2046  # as above
    (cd "$folder/package" && apt-get download -qq -o APT::Sandbox::User=root $(packages_of "$group"))
    dpkg-deb --fsys-tarfile "$folder/package"/*.deb | tar --extract --directory "$folder" --strip-components=3 ./usr/bin
    rm -r "$folder/package"
done
for group in "$@"; do
    is_there "$group" || { echo "ottla: $group is still missing after installing:$missing$unpacked" >&2; exit 1; }
done

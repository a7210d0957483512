#!/bin/sh
# etcd-users.sh FOLDER: run it once, and etcd asks for logins. Its users are root and ottla; ottla may use the prefix
# /ottla/ alone. Their passwords are in the FOLDER of certificates.sh, and go to etcdctl by its standard input.
#
# ETCDCTL is the command that runs etcdctl where it reaches etcd, such as 'kubectl exec -i etcd-0 -- etcdctl'.
# Default: etcdctl, for which ETCDCTL_ENDPOINTS and ETCDCTL_CACERT must be set.
set -eu
folder=$1
etcdctl=${ETCDCTL:-etcdctl}
export ETCDCTL_API=3
# One command in several words.
$etcdctl role add ottla </dev/null
$etcdctl role grant-permission ottla --prefix=true readwrite /ottla/ </dev/null
for user in root ottla; do
    $etcdctl user add "$user" --interactive=false <"$folder/etcd-$user.password"
    $etcdctl user grant-role "$user" "$user" </dev/null
done
$etcdctl auth enable </dev/null
